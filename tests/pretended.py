"""`rvc_core.training.detached` with a few lines of Python as its trainer, which `PRETENDED` holds."""

import os
import sys

from rvc_core.training import detached

if __name__ == "__main__":
    detached._command = lambda layout, order, processes: [  # type: ignore[assignment]
        *(sys.executable, "-c", os.environ["PRETENDED"], str(layout.root), str(processes))
    ]
    sys.exit(detached.main(sys.argv[1:]))

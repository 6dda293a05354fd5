"""``python -m rvc_core.cli`` is ``rvc``."""

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())

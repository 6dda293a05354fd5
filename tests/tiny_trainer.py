"""`rvc_core.training.detached` for the tiny voice of the tests: what its keeper and trainer run; and `rvc` for it."""

import sys

from rvc_core import presets
from rvc_core.training import detached

if __name__ == "__main__":
    detached._MODULE = "tiny_trainer"
    if sys.argv[1] != "keep":
        from tiny import TINY

        presets.PRESETS["nano"] = TINY
    if sys.argv[1] == "rvc":
        from rvc_core import cli

        sys.exit(cli.main(sys.argv[2:]))
    sys.exit(detached.main(sys.argv[1:]))

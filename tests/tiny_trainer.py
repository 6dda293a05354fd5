"""`rvc_core.launch` for the tiny voice of the tests: what its keeper and its trainer run; and `rvc` for it."""

import sys

from rvc_core import launch, presets

if __name__ == "__main__":
    if sys.argv[1] != "keep":
        from tiny import TINY
        presets.PRESETS["nano"] = TINY
    if sys.argv[1] == "rvc":
        from rvc_core import cli
        sys.exit(cli.main(sys.argv[2:]))
    sys.exit(launch.main(sys.argv[1:]))

"""`rvc_core.launch` for the tiny voice of the tests: what its keeper and its trainer run."""

import sys

from rvc_core import launch, presets

if __name__ == "__main__":
    if sys.argv[1] == "work":
        from tiny import TINY
        presets.PRESETS["nano"] = TINY
    sys.exit(launch.main(sys.argv[1:]))

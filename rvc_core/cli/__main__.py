"""``python -m rvc_core.cli`` is ``rvc``."""

import sys

from . import main

sys.exit(main())

"""`rvc_core.storage.mirror` before a storage that takes its time for everything."""

import os
import sys
import time
from typing import Any

from rvc_core.storage import mirror, snapshot

SECONDS = float(os.environ["SLOW_SECONDS"])
SLOW = {"open", "os.listdir", "os.mkdir", "os.remove", "os.rename", "os.scandir", "os.truncate"}
PLACE = sys.argv[3]


def _delay(event: str, arguments: tuple[Any, ...]) -> None:
    if event in SLOW and any(str(argument).startswith(PLACE) for argument in arguments):
        time.sleep(SECONDS)


def _slow_copy(*arguments: Any, copy: Any = snapshot._copy) -> None:
    time.sleep(SECONDS)
    copy(*arguments)


if __name__ == "__main__":
    sys.addaudithook(_delay)
    snapshot._copy = _slow_copy
    sys.exit(mirror.main(sys.argv[1:]))

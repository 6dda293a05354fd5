"""The command line in a process of its own, so that the notebook's kernel never holds a GPU's memory."""

import json
import subprocess
import sys
import tempfile
from collections import deque
from typing import Any

from ..errors import RVCError
from ..settings import Settings
from ..system.platforms import child_environment
from .texts import translated


def run_command(
    command: str, *arguments: str, settings: tuple[Settings, ...] = (), failing: bool = True, quiet: bool = False
) -> dict[str, Any]:
    """Run ``rvc <command>`` in a process of its own, show its progress, and return its JSON object.

    Parameters
    ----------
    failing : bool
        Whether a failure of the command is raised; otherwise it is in the object.
    quiet : bool
        Whether its progress is not shown.

    Raises
    ------
    RVCError
        As the command said it.
    """
    flags = [
        f"--{name.replace('_', '-')}={str(value).lower() if isinstance(value, bool) else value}"
        for one in settings
        for name, value in one.stamp().items()
        if value is not None
    ]
    call = [sys.executable, "-m", "rvc_core.cli", command, *flags, "--json", *arguments]
    said: deque[str] = deque(maxlen=3)
    with tempfile.TemporaryFile("w+", encoding="utf-8") as answer:
        with subprocess.Popen(
            call, stdout=answer, stderr=subprocess.PIPE, text=True, encoding="utf-8", env=child_environment()
        ) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if not quiet:
                    print(translated(line.rstrip()))
                said.append(line.strip())
        answer.seek(0)
        lines = answer.read().splitlines()
    if not lines:
        raise RVCError(
            f"rvc {command} ended with status {process.returncode}", hint=" ".join(said) or "run the cell again"
        )
    result = json.loads(lines[-1])
    if "error" in result and (failing or "hint" in result and len(result) == 2):
        raise RVCError(result["error"], hint=result["hint"])
    return result

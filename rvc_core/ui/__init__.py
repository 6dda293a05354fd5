"""The former name of `rvc_core.notebook`, which notebooks that people saved import."""

from typing import Any

from .. import notebook


def __getattr__(name: str) -> Any:
    if name == "players":
        from ..notebook import listening

        return listening
    return getattr(notebook, name)

"""The notebooks: forms, the recordings' way in, and one function for each cell. Widgets load when one is shown."""

import importlib
from typing import Any

_PUBLIC = {
    "Form": "forms",
    "watch": "watching",
    "tensorboard": "tensorboard_server",
    **dict.fromkeys(
        (
            "check",
            "begin",
            "lab",
            "recordings",
            "songs",
            "form",
            "prepare",
            "start",
            "watch_training",
            "stop",
            "upload",
        ),
        "cells",
    ),
    **dict.fromkeys(("report", "plan"), "planning"),
    "parameters": "unattended",
    "sing": "singing",
    **dict.fromkeys(("listen", "choose", "convert", "speak", "clean", "export", "clean_up", "job"), "results"),
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'rvc_core.notebook' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)

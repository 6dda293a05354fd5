"""Forms, panels and cells of the notebooks. Widgets are imported when a notebook shows one."""

import importlib
from typing import Any

_PUBLIC = {"Form": "forms", "watch": "panels", "tensorboard": "board"}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'rvc_core.ui' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)

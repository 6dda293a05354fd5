"""Google Drive: refuses when DRIVE_REFUSES says why, as after a declined consent."""

import os
from pathlib import Path

from .errors import MessageError


def flush_and_unmount(timeout_ms=24 * 60 * 60 * 1000):
    """Push what is cached, and unmount."""


def mount(mountpoint, force_remount=False, timeout_ms=120000, readonly=False):
    """Mount My Drive."""
    if " " in mountpoint:
        raise ValueError("Mountpoint must not contain a space.")
    if why := os.environ.get("DRIVE_REFUSES"):
        raise MessageError(f"Error: credential propagation was unsuccessful: {why}")
    Path(mountpoint, "MyDrive").mkdir(parents=True, exist_ok=True)

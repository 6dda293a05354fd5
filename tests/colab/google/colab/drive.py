"""Google Drive: refuses when DRIVE_REFUSES says why, as after a declined consent; DEAD is a mount that went away."""

import os
from pathlib import Path

from .errors import MessageError

MOUNTED, DEAD = set(), set()


def flush_and_unmount(timeout_ms=24 * 60 * 60 * 1000):
    """Push what is cached, and unmount."""


def mount(mountpoint, force_remount=False, timeout_ms=120000, readonly=False):
    """Mount My Drive."""
    if " " in mountpoint:
        raise ValueError("Mountpoint must not contain a space.")
    if mountpoint in MOUNTED and not force_remount:
        return
    if why := os.environ.get("DRIVE_REFUSES"):
        raise MessageError(f"Error: credential propagation was unsuccessful: {why}")
    if not force_remount and mountpoint in DEAD:
        raise OSError(107, "Transport endpoint is not connected", mountpoint)
    if mountpoint not in MOUNTED and Path(mountpoint).is_dir() and os.listdir(mountpoint):
        raise ValueError("Mountpoint must not already contain files")
    DEAD.discard(mountpoint)
    MOUNTED.add(mountpoint)
    Path(mountpoint, "MyDrive").mkdir(parents=True, exist_ok=True)

"""Files between the browser and the machine."""

from pathlib import Path

DOWNLOADED = []


def upload(target_dir=""):
    """The browser sends one file."""
    Path(target_dir, "take one.wav").write_bytes(b"RIFF")
    return {"take one.wav": b"RIFF"}


def download(filename):
    """The browser takes a file."""
    if not Path(filename).exists():
        raise FileNotFoundError(f"Cannot find file: {filename}")
    DOWNLOADED.append(filename)

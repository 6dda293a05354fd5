"""The platform: which one it is, when it ends a session, and the folder that everything is written to."""

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import StorageError
from .files import FULL

DRIVE = "/content/drive"  # where Colab mounts Google Drive
_OWN = {"/kaggle": "kaggle", "/teamspace": "lightning"}  # folders that only these platforms keep
DEAD = (errno.ENOTCONN, errno.EIO, errno.ESTALE)  # of a mount whose program has ended
MOUNT_AGAIN = "mount it again (in a notebook: run Begin), then run this again"
_SESSION_MARGIN_MINUTES = 20.0  # for copying results, and because the hours are approximate


@dataclass(frozen=True)
class Platform:
    """A place where rvc_core runs.

    Parameters
    ----------
    name : str
        ``kaggle``, ``lightning``, ``colab`` or ``local``.
    title : str
        Its name, as shown to people.
    home : Path
        Fast local disk for running experiments.
    storage : Path or None
        Folder that outlives the session. None: you have to mount one first.
    session_hours : tuple of float
        Ages at which it ends a session, ascending. The second is for paying users.
    earlier : Path or None
        Read-only folder with the results of earlier sessions and jobs.
    """

    name: str
    title: str
    home: Path
    storage: Path | None
    session_hours: tuple[float, ...] = ()
    earlier: Path | None = None


def in_drive(path: str | Path) -> bool:
    """Whether a path lies in Google Drive as Colab mounts it."""
    return Path(os.path.realpath(os.path.expanduser(path))).is_relative_to(DRIVE)


def is_mount(path: str) -> bool:
    """Whether another file system than that of ``/`` is mounted there, and answers."""
    try:
        return os.path.ismount(path) or os.stat(path).st_dev != os.stat("/").st_dev
    except OSError:
        return False


def is_reachable(path: str | Path) -> bool:
    """Whether `path` is on storage that answers, and that is what it claims; the file itself may be missing.

    A path in Drive counts only while Drive is mounted: before that, and after, it leads to the temporary disk.
    """
    try:
        os.stat(os.path.expanduser(path))
    except OSError as error:
        if error.errno in DEAD:
            return False
    if in_drive(path):
        return is_mount(DRIVE)
    return all(detect().name == name for root, name in _OWN.items() if Path(path).is_relative_to(root))


def in_words(error: OSError) -> tuple[str, str]:
    """What went wrong with which file, and what to do."""
    hint = "check that the path exists and that the disk works"
    if error.errno in DEAD:
        hint = f"its storage went away: {MOUNT_AGAIN}"
    elif isinstance(error, NotADirectoryError | FileExistsError):
        hint = "this path must be a folder, but it is a file: move the file, or change --output or RVC_HOME"
    elif error.errno in (None, *FULL):  # numpy gives none
        hint = "the disk, or what you may use of it, is full: free some space, then run this again"
    elif isinstance(error, PermissionError) or error.errno == errno.EROFS:
        hint = "choose folders that you can read and write (inputs, --output, RVC_HOME)"
    return (error.strerror or str(error)) + (f": {error.filename}" if error.filename else ""), hint


@contextlib.contextmanager
def reaching(path: str | Path) -> Iterator[None]:
    """Read or write a file whose storage may go away meanwhile.

    Raises
    ------
    StorageError
        When it did: a mount of Google Drive may end in the middle of a conversion.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in DEAD:
            raise
        raise StorageError(f"{path} cannot be reached: its storage went away", hint=MOUNT_AGAIN) from error


def _exists(path: str) -> bool:
    return os.path.exists(path) and is_reachable(path)


def detect(environment: Mapping[str, str] = os.environ, exists: Callable[[str], bool] = _exists) -> Platform:
    """Detect the platform.

    Kaggle comes first, because its image is built on Colab's and sets Colab's variables too.

    Parameters
    ----------
    environment : mapping
        The environment variables.
    exists : callable
        Tells whether a path exists.

    Examples
    --------
    >>> detect({"KAGGLE_KERNEL_RUN_TYPE": "Batch", "COLAB_RELEASE_TAG": "r1"}, exists=lambda path: False).name
    'kaggle'
    """
    if "KAGGLE_KERNEL_RUN_TYPE" in environment:
        working = Path("/kaggle/working")
        return Platform("kaggle", "Kaggle", working, working, (12.0,), Path("/kaggle/input"))
    if "LIGHTNING_CLOUD_SPACE_ID" in environment:  # a job cannot write to the Studio, only to its artifacts
        home = Path(environment.get("LIGHTNING_ARTIFACTS_DIR") or "/teamspace/studios/this_studio")
        return Platform("lightning", "Lightning.AI", home, home, (), Path("/teamspace/jobs"))
    if "COLAB_RELEASE_TAG" in environment or exists("/var/colab/hostname"):
        drive = Path(DRIVE, "MyDrive")
        storage = drive / "rvc_core" if exists(str(drive)) else None
        return Platform("colab", "Google Colab", Path("/content"), storage, (12.0, 24.0))
    return Platform("local", "this machine", Path.cwd(), Path.cwd())


def child_environment() -> dict[str, str]:
    """Environment for processes that we start, so that they find this package even if it is not installed."""
    place = str(Path(__file__).parents[2])
    if place.endswith("-packages"):
        return dict(os.environ)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [place, os.environ.get("PYTHONPATH")]))}


def started_ticks(process: int) -> int | None:
    """Start time of a process, in clock ticks since the machine started. With its number it identifies the process.

    None if the process does not exist or has ended (a zombie).
    """
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def session_minutes_left(here: Platform | None = None, age_hours: float | None = None) -> float | None:
    """Minutes until the platform ends the session, minus a margin. None if no end is known.

    Parameters
    ----------
    here : Platform, optional
        Default: the detected one.
    age_hours : float, optional
        Age of the session. Default: the age of the container's first process.

    Examples
    --------
    >>> kaggle = detect({"KAGGLE_KERNEL_RUN_TYPE": "Batch"})
    >>> session_minutes_left(kaggle, age_hours=11.0)
    40.0
    """
    ends = (here or detect()).session_hours
    if not ends:
        return None
    age_hours = _session_hours() if age_hours is None else age_hours
    ahead = [hours for hours in ends if hours > age_hours]  # a session older than the first limit has the longer one
    return max(0.0, 60 * (min(ahead) - age_hours) - _SESSION_MARGIN_MINUTES) if ahead else None


def _session_hours() -> float:
    import psutil  # here, because set-up uses this module before it installs packages

    return (time.time() - psutil.Process(1).create_time()) / 3600


def home() -> Path:
    """Root folder of experiments, caches and weights: ``RVC_HOME``, or else the platform's working folder."""
    return Path(os.environ.get("RVC_HOME") or detect().home).expanduser().absolute()

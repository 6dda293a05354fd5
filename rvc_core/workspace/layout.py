"""All paths inside an experiment; no other module builds them.

The folder is RVC WebUI's ``logs/<name>``, plus our own files (docs/file_formats.md).
"""

import difflib
import re
import shlex
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import SettingsError, StageOrderError, WeightsError
from ..settings import text_of
from ..system.documents import LEAF, read_or
from ..system.files import slug_of
from ..system.inside import is_regular
from ..system.platforms import home

LATEST_ONLY = 2_333_333  # RVC's number for a pair that it overwrites at each save; not a step

_GENERATOR = re.compile(r"G_(\d+)\.pth")
_VOICE = re.compile(r".*_e(\d+)_s(\d+)\.pth")
_INDEX = re.compile(r"(?:.+_)?added_IVF\d+_Flat_nprobe_\d+_(.+)_(v1|v2|nano)")  # RVC's links have a prefix
_SUFFIX = re.compile(r"_e\d+_s\d+$")
_LISTED = 8  # names in a hint

# Names inside an experiment, as a save holds them: nothing else of another person's save is written
WEIGHTS = rf"{LEAF}\.(?:pth|pt|index)"
PREPARED = re.compile(
    rf"(?:(?:heldout|mute)/)?(?:0_gt_wavs|1_16k_wavs|2a_f0|2b-f0nsf|3_feature\d+)/{LEAF}"
    r"|stamps/(?!index\.|train\.)[\w-]+\.json|filelist\.txt|manifest\.jsonl"
)
RECORD = re.compile(
    rf"(?:eval/)?events\.out\.tf{LEAF}|(?:experiment|config|pinned)\.json|metrics\.jsonl|stamps/(?:index|train)\.json"
)


@dataclass(frozen=True)
class Inside:
    """A file or folder of an experiment, by its name there: an attribute that is its path."""

    name: str

    def __get__(self, layout: "Layout", owner: type) -> Path:
        return layout.root / self.name


@dataclass(frozen=True)
class Layout:
    """The files of one experiment.

    Examples
    --------
    >>> layout = Layout(Path("/data/logs/alice"), "alice")
    >>> layout.generator(120).name, layout.voice(60, 120).name
    ('G_120.pth', 'alice_e60_s120.pth')
    """

    root: Path
    name: str

    @classmethod
    def of(cls, name: str | float, root: Path | None = None) -> "Layout":
        """The layout of the experiment with this name, under ``RVC_HOME/logs``.

        Raises
        ------
        SettingsError
            When the name is empty or consists of dots.
        """
        name = text_of(name)
        if not isinstance(name, str) or name.strip(". \n\t") == "":
            raise SettingsError(f"{name!r} is not a valid experiment name", hint="use letters of any script")
        return cls((root or home()) / "logs" / slug_of(name), name)

    @property
    def slug(self) -> str:
        """Folder name: the name in ASCII."""
        return self.root.name

    # -- data ------------------------------------------------------------------------------------------------------
    clips = Inside("0_gt_wavs")  # training clips at the voice's rate, float32 WAV
    clips_16k = Inside("1_16k_wavs")  # the same clips at 16 kHz
    f0_coarse = Inside("2a_f0")  # quantised pitch, 1..255, per clip
    f0_hz = Inside("2b-f0nsf")  # pitch in Hz per clip, 0 where unvoiced

    def features(self, width: int) -> Path:
        """Content features per clip: ``3_feature256`` or ``3_feature768``."""
        return self.root / f"3_feature{width}"

    @property
    def heldout(self) -> "Layout":
        """The same folders for held-out clips, which training never reads."""
        return Layout(self.root / "heldout", self.name)

    @property
    def mute(self) -> "Layout":
        """The silent clip at the end of RVC's file list."""
        return Layout(self.root / "mute", self.name)

    experiment = Inside("experiment.json")  # description of the experiment: name, dataset, preset

    def stamp(self, stage: str) -> Path:
        """Settings and inputs of a stage's current results."""
        return self.root / "stamps" / f"{stage}.json"

    manifest = Inside("manifest.jsonl")  # clips, and reasons for unused audio
    filelist = Inside("filelist.txt")  # RVC's list of training clips
    config = Inside("config.json")  # RVC's model and training configuration

    # -- training --------------------------------------------------------------------------------------------------
    metrics = Inside("metrics.jsonl")  # steps, validations and saved voices, one JSON object per line
    choices = Inside("choices.jsonl")  # listening comparisons of saved voices, one per line
    listening = Inside("listening")  # conversions of the same clips by saved voices, for comparison by ear
    eval_board = Inside("eval")  # TensorBoard's run of the validations
    verdict = Inside("verdict.json")  # result of the validations: which voice is the best
    checkpoints = Inside("checkpoints.json")  # names and hashes of complete checkpoints, written last
    incomplete = Inside("incomplete")  # folder for files of incomplete checkpoints
    stop = Inside("STOP")  # create this file to make training save and end
    lock = Inside("train.lock")  # lock of a running training

    def lock_of(self, stage: str) -> Path:
        """Lock of a stage. Except training's, it is beside the folder, which a stage may make or replace."""
        return self.lock if stage == "train" else self.root.with_name(f".{self.slug}.{stage}.lock")

    pinned = Inside("pinned.json")  # steps whose checkpoints and voices are never removed: a JSON list that you write
    run = Inside("run.json")  # background training: process, settings and result
    beacon = Inside("progress.json")  # progress of the background training, updated every second
    mirrored = Inside("storage.json")  # state and problem of saving to storage
    log = Inside("train.log")  # output of the background training

    def generator(self, step: int) -> Path:
        """Generator and its optimizer, in RVC's format."""
        return self.root / f"G_{step}.pth"

    def discriminator(self, step: int) -> Path:
        """Discriminator and its optimizer, in RVC's format."""
        return self.root / f"D_{step}.pth"

    def state(self, step: int) -> Path:
        """Everything else that resuming needs: random generators, position, history."""
        return self.root / f"state_{step}.pt"

    def generator_steps(self) -> list[int]:
        """Steps of all ``G_*.pth``, ascending."""
        return sorted(int(match[1]) for path in self.root.glob("G_*.pth") if (match := _GENERATOR.fullmatch(path.name)))

    # -- results ---------------------------------------------------------------------------------------------------
    def voice(self, epoch: int, step: int) -> Path:
        """The voice saved at one step."""
        return self.root / f"{self.slug}_e{epoch}_s{step}.pth"

    @property
    def final_voice(self) -> Path:
        """The voice at the end of training."""
        return self.root / f"{self.slug}.pth"

    def voices(self) -> list[Path]:
        """All saved voices by epoch and step, the final one last."""
        dated = sorted(
            (int(match[1]), int(match[2]), path)
            for path in self.root.glob("*.pth")
            if path != self.final_voice and (match := _VOICE.fullmatch(path.name)) and is_regular(path)
        )
        return [path for _, _, path in dated] + ([self.final_voice] if is_regular(self.final_voice) else [])

    def step_of(self, voice: Path) -> int:
        """The step in a voice's file name; 0 for the final voice."""
        match = _VOICE.fullmatch(voice.name)
        return int(match[2]) if match else 0

    def index(self, lists: int, version: str) -> Path:
        """The feature index, with RVC's name."""
        return self.root / f"added_IVF{lists}_Flat_nprobe_1_{self.slug}_{version}.index"

    def indexes(self, version: str = "", owners: Collection[str] = ()) -> list[Path]:
        """Indexes in this folder, newest first: all, or only those of `owners` with this version."""

        def belongs(path: Path) -> bool:
            owner, made_for = match.groups() if (match := _INDEX.fullmatch(path.stem)) else (path.stem, version)
            return owner in owners and made_for == version  # Applio's index has only the voice's name

        found = [
            path
            for path in self.root.glob("*.index")
            if (belongs(path) if owners else not path.name.startswith("trained_")) and is_regular(path)
        ]
        return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def voice_names(path: Path, name: str) -> set[str]:
    """Names that a voice's index can have: the voice's name, or its file name without epoch and step.

    Examples
    --------
    >>> sorted(voice_names(Path("alice_e60_s120.pth"), "Alice!"))
    ['Alice!', 'Alice-8b0084', 'alice']
    """
    stems = [_SUFFIX.sub("", text) for text in (name, path.stem)]
    return {*stems, *map(slug_of, stems)}


def typed(name: str) -> str:
    """A name as the last word of a command that can be pasted.

    Examples
    --------
    >>> typed("Anna Maria"), typed("-x")
    ("'Anna Maria'", '-- -x')
    """
    return ("-- " if name.startswith("-") else "") + shlex.quote(name)


def refuse_unknown(layout: Layout) -> None:
    """Refuse a name that no experiment has: it may be mistyped.

    Raises
    ------
    StageOrderError
        With the names that there are.
    """
    if layout.root.exists():
        return
    names = sorted(map(_name_in, _folders(layout.root.parent)))
    listed = f"there is: {', '.join(names[:_LISTED])}" if names else ""
    raise StageOrderError(
        f"there is no experiment {layout.name!r} in {layout.root.parent}",
        hint=meant(layout.name, names) or listed or "train one with rvc run, or set RVC_HOME to where yours are",
    )


def _folders(logs: Path) -> list[Path]:
    return [folder for folder in sorted(logs.glob("[!.]*")) if folder.is_dir()]


def _name_in(folder: Path) -> str:
    """The name that finds a folder: the experiment's, or the folder's if it was renamed or has no record."""
    name = str(read_or(folder / "experiment.json", dict[str, Any], {}).get("name", ""))
    return name if slug_of(name) == folder.name else folder.name


def meant(name: str, names: Collection[str]) -> str:
    """The question what a mistyped name meant; empty if no name is like it.

    Examples
    --------
    >>> meant("Alcie", ["alice", "bob"]), meant("x", ["alice", "bob"])
    ('did you mean alice?', '')
    """
    known = {one.lower(): one for one in sorted(names)}
    near = difflib.get_close_matches(name.lower(), known, 3)
    return f"did you mean {', '.join(known[one] for one in near)}?" if near else ""


def voice_path(path: str | float | Path) -> Path:
    """The voice file at this path, or the newest voice of the experiment with this name."""
    file = Path(text_of(path)).expanduser()
    if file.is_file():
        return file
    layout = Layout.of(text_of(path))
    if saved := layout.voices():
        return saved[-1]
    names = []
    if not layout.root.exists():  # else it is the one that was meant
        names = [_name_in(folder) for folder in _folders(layout.root.parent) if Layout(folder, "").voices()]
    if file.suffix.lower() in (".pth", ".safetensors"):
        names += [beside.name for beside in file.parent.glob(f"*{file.suffix}")]
    raise WeightsError(
        f"{str(path)!r} is neither a voice file nor an experiment with a voice",
        hint=meant(file.name, names)
        or f"give the path of a .pth, or train with rvc run until {layout.root} contains a voice",
    )

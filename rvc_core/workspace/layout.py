"""Every path inside an experiment, named once; nothing else in the package builds paths.

The folder is RVC WebUI's ``logs/<name>``, and what we add stands beside it (docs/file_formats.md).
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ..errors import SettingsError, WeightsError
from ..system.files import slug_of
from ..system.platforms import home

LATEST_ONLY = 2_333_333  # RVC's name for a pair that is overwritten at each save: no step at all

_GENERATOR = re.compile(r"G_(\d+)\.pth")
_VOICE = re.compile(r".*_e(\d+)_s(\d+)\.pth")
_INDEX = re.compile(r"(?:.+_)?added_IVF\d+_Flat_nprobe_\d+_(.+)_(v1|v2|nano)")  # RVC puts a name before its links
_DATE = re.compile(r"_e\d+_s\d+$")

# Names inside an experiment, as a save holds them: nothing else of another person's save is written
_LEAF = r"[^/.\x00-\x1f][^/\x00-\x1f]{0,200}"
WEIGHTS = rf"{_LEAF}\.(?:pth|pt|index)"
PREPARED = re.compile(
    rf"(?:(?:heldout|mute)/)?(?:0_gt_wavs|1_16k_wavs|2a_f0|2b-f0nsf|3_feature\d+)/{_LEAF}"
    r"|stamps/(?!index\.)[\w-]+\.json|filelist\.txt|manifest\.jsonl"
)
RECORD = re.compile(
    rf"(?:eval/)?events\.out\.tf{_LEAF}|(?:experiment|config|pinned)\.json|metrics\.jsonl|stamps/index\.json"
)


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
    def of(cls, name: str, root: Path | None = None) -> "Layout":
        """The layout of the experiment with this human name, under ``RVC_HOME/logs``.

        Raises
        ------
        SettingsError
            When the name is empty or would leave the folder.
        """
        if not name.strip() or name.strip(". ") == "":
            raise SettingsError(f"not a name for an experiment: {name!r}", hint="use letters, in any script")
        return cls((root or home()) / "logs" / slug_of(name), name)

    @property
    def slug(self) -> str:
        """ASCII spelling of the name: the folder's own name."""
        return self.root.name

    # -- data ------------------------------------------------------------------------------------------------------
    @property
    def clips(self) -> Path:
        """Training clips at the voice's rate, float32 WAV."""
        return self.root / "0_gt_wavs"

    @property
    def clips_16k(self) -> Path:
        """The same clips at 16 kHz."""
        return self.root / "1_16k_wavs"

    @property
    def f0_coarse(self) -> Path:
        """Quantised pitch, 1..255, per clip."""
        return self.root / "2a_f0"

    @property
    def f0_hz(self) -> Path:
        """Pitch in Hz per clip, 0 where unvoiced."""
        return self.root / "2b-f0nsf"

    def features(self, width: int) -> Path:
        """Content features per clip: ``3_feature256`` or ``3_feature768``."""
        return self.root / f"3_feature{width}"

    @property
    def heldout(self) -> "Layout":
        """The same folders for the recordings that training never sees."""
        return Layout(self.root / "heldout", self.name)

    @property
    def mute(self) -> "Layout":
        """The silent clip that RVC's file list ends with."""
        return Layout(self.root / "mute", self.name)

    @property
    def experiment(self) -> Path:
        """What this experiment is: name, dataset, preset."""
        return self.root / "experiment.json"

    def stamp(self, stage: str) -> Path:
        """The settings and inputs that the present results of a stage were made with."""
        return self.root / "stamps" / f"{stage}.json"

    @property
    def manifest(self) -> Path:
        """Where each second of the input went."""
        return self.root / "manifest.jsonl"

    @property
    def filelist(self) -> Path:
        """RVC's list of training clips."""
        return self.root / "filelist.txt"

    @property
    def config(self) -> Path:
        """RVC's model and training configuration."""
        return self.root / "config.json"

    # -- training --------------------------------------------------------------------------------------------------
    @property
    def metrics(self) -> Path:
        """Every step, validation and saved voice, one JSON object a line."""
        return self.root / "metrics.jsonl"

    @property
    def choices(self) -> Path:
        """Which saved voice was preferred to which by ear, one comparison a line."""
        return self.root / "choices.jsonl"

    @property
    def listening(self) -> Path:
        """What saved voices made of the same clips, to be compared by ear."""
        return self.root / "listening"

    @property
    def eval_board(self) -> Path:
        """TensorBoard's run of the validations, which people can untick."""
        return self.root / "eval"

    @property
    def verdict(self) -> Path:
        """What the validations said last: which voice is the best."""
        return self.root / "verdict.json"

    @property
    def checkpoints(self) -> Path:
        """Names and hashes of the complete checkpoint sets, written last."""
        return self.root / "checkpoints.json"

    @property
    def incomplete(self) -> Path:
        """Where unpaired checkpoint files are put aside."""
        return self.root / "incomplete"

    @property
    def stop(self) -> Path:
        """Created by anybody who wants training to save and end."""
        return self.root / "STOP"

    @property
    def lock(self) -> Path:
        """Held by whoever trains."""
        return self.root / "train.lock"

    @property
    def pinned(self) -> Path:
        """Steps whose checkpoints and voices are never removed: a JSON list that only its owner writes."""
        return self.root / "pinned.json"

    @property
    def run(self) -> Path:
        """The detached training: its process, settings, and how it ended."""
        return self.root / "run.json"

    @property
    def beacon(self) -> Path:
        """Where the detached training is, renewed every second."""
        return self.root / "progress.json"

    @property
    def mirrored(self) -> Path:
        """What was copied to the storage that outlives this machine, and what stands in the way."""
        return self.root / "storage.json"

    @property
    def log(self) -> Path:
        """What the detached training wrote."""
        return self.root / "train.log"

    def generator(self, step: int) -> Path:
        """Generator and its optimizer, in RVC's form."""
        return self.root / f"G_{step}.pth"

    def discriminator(self, step: int) -> Path:
        """Discriminator and its optimizer, in RVC's form."""
        return self.root / f"D_{step}.pth"

    def state(self, step: int) -> Path:
        """What RVC's two files have no place for: random generators, position, history."""
        return self.root / f"state_{step}.pt"

    def generator_steps(self) -> list[int]:
        """Steps for which a ``G_*.pth`` exists, ascending."""
        return sorted(int(match[1]) for path in self.root.glob("G_*.pth") if (match := _GENERATOR.fullmatch(path.name)))

    # -- results ---------------------------------------------------------------------------------------------------
    def voice(self, epoch: int, step: int) -> Path:
        """The voice as it was at one point of training."""
        return self.root / f"{self.slug}_e{epoch}_s{step}.pth"

    @property
    def final_voice(self) -> Path:
        """The voice at the end of training."""
        return self.root / f"{self.slug}.pth"

    def voices(self) -> list[Path]:
        """All saved voices in the order of their epochs and steps, the final one last."""
        dated = sorted(
            (int(match[1]), int(match[2]), path)
            for path in self.root.glob("*.pth")
            if path != self.final_voice and (match := _VOICE.fullmatch(path.name))
        )
        return [path for _, _, path in dated] + ([self.final_voice] if self.final_voice.exists() else [])

    def step_of(self, voice: Path) -> int:
        """The step in the name of a voice that is not the final one."""
        match = _VOICE.fullmatch(voice.name)
        return int(match[2]) if match else 0

    def index(self, lists: int, version: str) -> Path:
        """The feature index, named as RVC names it."""
        return self.root / f"added_IVF{lists}_Flat_nprobe_1_{self.slug}_{version}.index"

    def indexes(self, version: str = "", owners: Collection[str] = ()) -> list[Path]:
        """Feature indexes in this folder, newest first: all, or those of one version that belong to one of `owners`."""

        def belongs(path: Path) -> bool:
            owner, made_for = match.groups() if (match := _INDEX.fullmatch(path.stem)) else (path.stem, version)
            return owner in owners and made_for == version  # Applio names an index after its voice, and no more

        found = [
            path
            for path in self.root.glob("*.index")
            if (belongs(path) if owners else not path.name.startswith("trained_"))
        ]
        return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def voice_names(path: Path, name: str) -> set[str]:
    """What the index of a voice file may be called after: the voice's own name, or that of its file without the date.

    Examples
    --------
    >>> sorted(voice_names(Path("alice_e60_s120.pth"), "Alice!"))
    ['Alice!', 'Alice-8b0084', 'alice']
    """
    stems = [_DATE.sub("", text) for text in (name, path.stem)]
    return {*stems, *map(slug_of, stems)}


def voice_path(path: str | Path) -> Path:
    """The voice file itself, or the final voice of the experiment with this name."""
    file = Path(path).expanduser()
    if file.is_file():
        return file
    layout = Layout.of(str(path))
    if saved := layout.voices():
        return saved[-1]
    raise WeightsError(
        f"{str(path)!r} is neither a voice file nor an experiment with a voice",
        hint=f"give the path of a .pth; or train it, with rvc run, until {layout.root} holds one",
    )

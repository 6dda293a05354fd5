"""Hostile and damaged experiments, saves, batches and servers, made on the spot, each with the error it must give.

`DAMAGED` crosses every file that is read as JSON with every damage. `ATTACKS` are folders that lead elsewhere,
`BATCHES` are YAML texts, and `ANSWERS` are what a server sends. Saves that are changed in their lists and packs are in
``storage/test_hostile_saves.py``.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rvc_core.errors import (
    CheckpointError,
    DatasetError,
    RVCError,
    SettingsError,
    StageOrderError,
    StorageError,
    WeightsError,
)
from rvc_core.notebook.compare import preferences, record_choice
from rvc_core.notebook.outcome import progress_line
from rvc_core.notebook.session import Session
from rvc_core.preparation.build_index import build_index
from rvc_core.preparation.extract import extract
from rvc_core.preparation.foreign import open_foreign
from rvc_core.preparation.prepare import prepare
from rvc_core.progress import Silent
from rvc_core.settings import PrepareSettings, TrainSettings
from rvc_core.storage.mirror import told
from rvc_core.storage.places import find_saved, restore, save
from rvc_core.system.files import write_json
from rvc_core.system.inside import open_inside
from rvc_core.system.locks import locked
from rvc_core.training import detached
from rvc_core.training.beacon import Follower, read_state
from rvc_core.training.outcome import run_record
from rvc_core.training.train import train
from rvc_core.verdict.overtraining import verdict_of_experiment
from rvc_core.voices.share import export_voice, import_voices
from rvc_core.workspace.checkpoint import load_newest
from rvc_core.workspace.filelist import read_filelist
from rvc_core.workspace.layout import Layout
from rvc_core.workspace.manifest import ExperimentRecord, Manifest
from rvc_core.workspace.metrics import history
from rvc_core.workspace.retention import checkpoint_rows, pinned_steps, voice_scores, voices_to_save
from rvc_core.workspace.stamps import content_of

SECRET = "the sentinel's own words"


@dataclass(frozen=True)
class Ground:
    """Where a case plays: an experiment that was trained, a home, and files outside that belong to nobody here."""

    layout: Layout
    sentinel: Path

    @property
    def home(self) -> Path:
        """The root of the experiment."""
        return self.layout.root.parents[1]


# -- every file that is read, with every damage ----------------------------------------------------------------------
@dataclass(frozen=True)
class Reader:
    """A file, what reads it, and the error; None: the work goes on with what `use` gives for no file."""

    path: Callable[[Layout], Path]
    use: Callable[[Layout], Any]
    error: type[RVCError] | None = None


def _session(layout: Layout) -> Any:
    return Session.load()


READERS = {
    "checkpoints.json": Reader(lambda one: one.checkpoints, checkpoint_rows, CheckpointError),
    "pinned.json": Reader(lambda one: one.pinned, pinned_steps, CheckpointError),
    "experiment.json": Reader(lambda one: one.experiment, ExperimentRecord.load, DatasetError),
    "manifest.jsonl": Reader(lambda one: one.manifest, Manifest.load, DatasetError),
    "metrics.jsonl": Reader(lambda one: one.metrics, history, RVCError),
    "choices.jsonl": Reader(lambda one: one.choices, preferences, RVCError),
    "notebook.json": Reader(lambda one: Path(os.environ["RVC_HOME"], "notebook.json"), _session, SettingsError),
    "verdict.json": Reader(lambda one: one.verdict, voices_to_save),
    "run.json": Reader(lambda one: one.run, lambda one: (run_record(one), detached.is_running(one))),
    "progress.json": Reader(
        lambda one: one.beacon,
        lambda one: (progress_line(read_state(one.beacon) or {}), Follower(one.beacon, Silent()).look()),
    ),
    "storage.json": Reader(lambda one: one.mirrored, told),
    "stamps/begun.json": Reader(lambda one: one.stamp("begun"), lambda one: content_of(one, "begun")),
    "scores in metrics.jsonl": Reader(lambda one: one.metrics, voice_scores),
}


def _written(content: bytes) -> Callable[[Path, Path], object]:
    return lambda path, sentinel: path.write_bytes(content)


def _large(path: Path, sentinel: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 26)


DAMAGES: dict[str, Callable[[Path, Path], object]] = {
    "deep": _written(b'{"a": ' * 100_000 + b"\n{}\n"),
    "a deep list": _written(b"[" * 100_000 + b"\n[]\n"),
    "wrong types": _written(b'{"kind": "voice", "path": [], "state": 3, "label": {}, "heldout/mel": "x"}\n{}\n'),
    "a number": _written(b"7\n7\n"),
    "digits": _written(b'{"step": ' + b"1" * 5000 + b', "pid": ' + b"1" * 5000 + b"}\n{}\n"),
    "no text": _written(b"\xff\xfe\x00\n\x00\n"),
    "empty": _written(b"\n\n"),
    "a link": lambda path, sentinel: path.symlink_to(sentinel / "x"),
    "without end": lambda path, sentinel: path.symlink_to("/dev/zero"),
    "a pipe": lambda path, sentinel: os.mkfifo(path),
    "a folder": lambda path, sentinel: path.mkdir(),
    "large": _large,
}
DAMAGED = [(name, damage) for name in READERS for damage in DAMAGES]


# -- folders that lead elsewhere -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Attack:
    """How to make it, what meets it, and what must be said; no error: it is passed over, and nothing happens."""

    make: Callable[[Ground], object]
    use: Callable[[Ground], object]
    error: type[RVCError] | None
    says: str = ""


def _linked(name: str, target: str = "x") -> Callable[[Ground], None]:
    def make(ground: Ground) -> None:
        path = ground.layout.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            path.rename(path.with_name(f"{path.name} before"))
        path.unlink(missing_ok=True)
        path.symlink_to(ground.sentinel / target)

    return make


def _json(name: str, content: Any) -> Callable[[Ground], None]:
    return lambda ground: write_json(ground.layout.root / name, content)


def _lines(name: str, *rows: Any) -> Callable[[Ground], object]:
    return lambda ground: (ground.layout.root / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def _array(header: str, content: bytes = b"") -> Callable[[Ground], object]:
    def make(ground: Ground) -> None:
        text = f"{{'descr': {header}, 'fortran_order': False, 'shape': (1000000000000,), }}\n".encode()
        data = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content
        (ground.layout.features(8) / "0_0.npy").write_bytes(data)

    return make


def _index(ground: Ground) -> object:
    return build_index(ground.layout)


def _start(ground: Ground) -> object:
    return detached.start(ground.layout, TrainSettings())


def _train(ground: Ground) -> object:
    return train(ground.layout, TrainSettings.of(epochs=1, base_generator="none", base_discriminator="none"))


def _prepare(ground: Ground) -> object:
    return prepare(ground.layout, ground.sentinel.parent / "recordings", PrepareSettings(preset="nano"))


def _stop(ground: Ground) -> object:
    with open_inside(ground.layout.lock, "ab") as file:
        assert locked(file)
        return detached.stop(ground.layout)


def _files_inside(ground: Ground) -> None:
    for row in read_filelist(ground.layout.filelist):
        for path in (row.wave, row.features, row.f0_coarse, row.f0_hz):
            assert path is None or path.is_relative_to(ground.layout.root)
    _train(ground)


def _listed(path: str) -> Callable[[Ground], object]:
    def make(ground: Ground) -> None:
        line = "|".join([path.format(sentinel=ground.sentinel)] * 4 + ["0"])
        ground.layout.filelist.write_text(line)

    return make


def _planted(name: str) -> Callable[[Ground], object]:
    return lambda ground: (ground.layout.root.parent / name).symlink_to(ground.sentinel, target_is_directory=True)


def _foreign(name: str) -> Callable[[Ground], None]:
    """A folder of RVC WebUI, whose part `name` is a link."""

    def make(ground: Ground) -> None:
        ground.layout.experiment.unlink()
        path = ground.layout.root / name
        if path.exists():
            path.rename(ground.sentinel.parent / "elsewhere")
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(ground.sentinel.parent / "elsewhere")

    return make


def _import(ground: Ground) -> object:
    return open_foreign(ground.layout.root, Layout.of("imported", ground.home))


def _import_nothing(ground: Ground) -> object:
    return import_voices(ground.sentinel / "x", root=ground.home)


def _export(ground: Ground) -> None:
    report = export_voice(ground.layout.final_voice, ground.sentinel.parent / "out", layout="zip")
    assert report.warnings == ["no index of this voice was found"]


def _outcome(**record: Any) -> Callable[[Ground], None]:
    return _json("run.json", {"pid": 1, "host": "x", "log_begins": 0, **record})


def _watch(ground: Ground) -> object:
    return detached.watch(ground.layout)


def _saved_to_a_link(ground: Ground) -> None:
    (ground.home / "place").mkdir()
    (ground.home / "place" / ground.layout.slug).symlink_to(ground.sentinel, target_is_directory=True)


CLIP = {"kind": "clip", "id": "0_0", "recording": "a", "start_seconds": 0, "seconds": 1}
ROW = {"kind": "voice", "step": 1, "epoch": 1}
ATTACKS: dict[str, Attack] = {
    # what stages write to or read from
    "a lock that is a link": Attack(_linked("train.lock"), _start, StorageError, "train.lock is a link"),
    "a lock of a stage that is a link": Attack(_planted(".tiny.index.lock"), _index, StorageError, "is a link"),
    "a log that is a link": Attack(_linked("train.log"), _start, StorageError, "train.log is a link"),
    "a STOP that is a link": Attack(_linked("STOP", "made"), _stop, StorageError, "STOP is a link"),
    "choices that are a link": Attack(
        _linked("choices.jsonl"), lambda g: record_choice(g.layout, "a", (1, 2), 1), StorageError, "is a link"
    ),
    "stamps elsewhere": Attack(_linked("stamps", ""), _index, StorageError, "stamps is a link"),
    "features elsewhere": Attack(_linked("3_feature8", ""), _index, StorageError, "3_feature8 is a link"),
    "clips elsewhere": Attack(_linked("0_gt_wavs", ""), _train, StorageError, "0_gt_wavs is a link"),
    "one clip elsewhere": Attack(_linked("0_gt_wavs/0_0.wav"), _train, StorageError, "0_0.wav is a link"),
    "held-out clips elsewhere": Attack(_linked("heldout", ""), _prepare, StorageError, "heldout is a link"),
    "a staging folder elsewhere": Attack(_linked(".preparing", ""), _prepare, StorageError, ".preparing is a link"),
    "TensorBoard's folder elsewhere": Attack(_linked("eval", ""), _train, StorageError, "eval is a link"),
    "torn checkpoints elsewhere": Attack(_linked("incomplete", ""), _train, StorageError, "incomplete is a link"),
    "pitch elsewhere": Attack(_linked("2a_f0", ""), lambda g: extract(g.layout), StorageError, "2a_f0 is a link"),
    "a pipe among the clips": Attack(
        lambda g: os.mkfifo(g.layout.clips / "9.wav"), _train, StorageError, "9.wav is a link or a device"
    ),
    "a temporary folder that is a link": Attack(
        _planted(".part-999999-x"), _import_nothing, WeightsError, "is a text file|neither a voice"
    ),
    "a temporary file that is a link": Attack(
        _linked(f".part-{os.getpid()}-verdict.json"), lambda g: write_json(g.layout.verdict, {}), None
    ),
    # names that leave the folder
    "a clip called ../../x": Attack(
        _lines("manifest.jsonl", CLIP | {"id": "../../sentinel/x"}),
        lambda g: extract(g.layout),
        DatasetError,
        "clip.id",
    ),
    "a clip with an absolute name": Attack(
        _lines("manifest.jsonl", CLIP | {"id": "/etc/hostname"}), _index, DatasetError, "clip.id"
    ),
    "a list of files elsewhere": Attack(_listed("{sentinel}/x"), _files_inside, DatasetError, "x"),
    "a list of files above": Attack(_listed("../0_gt_wavs/../x"), _files_inside, DatasetError, "not in RVC's format"),
    "a list of files of Windows": Attack(_listed("C:\\\\x\\\\..\\\\y"), _files_inside, DatasetError, "RVC's format"),
    "a speaker of 5,000 digits": Attack(
        lambda g: g.layout.filelist.write_text("a/b|c/d|" + "1" * 5000), _files_inside, DatasetError, "RVC's format"
    ),
    "a voice elsewhere in the metrics": Attack(
        _lines("metrics.jsonl", ROW | {"path": "/etc/hostname"}),
        lambda g: verdict_of_experiment(g.layout),
        RVCError,
        "path",
    ),
    "a voice above in the metrics": Attack(
        _lines("metrics.jsonl", ROW | {"path": "../../sentinel/x"}),
        lambda g: verdict_of_experiment(g.layout),
        RVCError,
        "path",
    ),
    "a checkpoint elsewhere": Attack(
        _json("checkpoints.json", [{"step": 1, "epoch": 1, "sha256": {"../../sentinel/x": "0" * 64}}]),
        lambda g: load_newest(g.layout),
        CheckpointError,
        "0.sha256",
    ),
    # more than there is
    "an array of 10^12 values": Attack(_array("'<f4'", b"\0" * 64), _index, DatasetError, "0_0.npy is damaged"),
    "an array of 10^12 values, trained on": Attack(_array("'<f4'"), _train, DatasetError, "0_0.npy is damaged"),
    "an array of objects": Attack(_array("'|O'", b"cos\nsystem\n"), _index, DatasetError, "0_0.npy is damaged"),
    "an array of text": Attack(
        lambda g: np.save(g.layout.features(8) / "1_0.npy", np.full((3, 8), "x")), _index, DatasetError, "of <U1"
    ),
    "an array of another width": Attack(
        lambda g: np.save(g.layout.features(8) / "1_0.npy", np.zeros((3, 5), np.float32)),
        _index,
        DatasetError,
        "its shape",
    ),
    "a billion speakers": Attack(
        _json("experiment.json", {"name": "tiny", "dataset": "", "preset": "nano", "speakers": 10**9}),
        _train,
        DatasetError,
        "speakers",
    ),
    "an unknown preset": Attack(
        _json("experiment.json", {"name": "tiny", "dataset": "", "preset": "__init__"}), _train, SettingsError, "preset"
    ),
    "endless steps of progress": Attack(
        _json(
            "progress.json",
            dict.fromkeys(("label", "note"), "x")
            | {"total": 10**15, "done": 10**15, "said": 0, "lines": [], "time": 0, "usual_seconds": None},
        ),
        lambda g: Follower(g.layout.beacon, Silent()).look(),
        None,
    ),
    # what run.json says
    "an error that is a module": Attack(_outcome(state="failed", kind="re", error="e"), _watch, RVCError, "e"),
    "an error that is a function": Attack(
        _outcome(state="failed", kind="printable", error="e", hint="h"), _watch, RVCError, "e"
    ),
    "an error without words": Attack(_outcome(state="failed"), _watch, RVCError, "does not say"),
    "done without a report": Attack(_outcome(state="done"), _watch, RVCError, "does not say"),
    "an unknown state": Attack(_outcome(state="maybe"), _watch, StageOrderError, "no training"),
    "a process with a number below zero": Attack(
        _outcome(state="running", pid=-1), _watch, StageOrderError, "no train"
    ),
    "the first process of the machine": Attack(
        _outcome(state="running", started_ticks=None), _watch, RVCError, "without a result"
    ),
    # folders of other programs, and places
    "clips of RVC WebUI elsewhere": Attack(_foreign("0_gt_wavs/0_0.wav"), _import, StorageError, "0_0.wav is a link"),
    "a folder of RVC WebUI elsewhere": Attack(_foreign("3_feature8"), _import, StorageError, "3_feature8 is a link"),
    "a checkpoint of RVC WebUI elsewhere": Attack(_foreign("G_7.pth"), _import, StorageError, "G_7.pth is a link"),
    "a place that is a link": Attack(
        _saved_to_a_link, lambda g: save(g.layout, str(g.home / "place")), RVCError, "is a link|no checkpoint"
    ),
    "a save that is a link": Attack(
        lambda g: (g.home / "saved-e1-s1.json").symlink_to(g.sentinel / "x"),
        lambda g: restore("tiny", str(g.home)),
        StorageError,
        "no complete save",
    ),
    "an experiment with a link in a place": Attack(
        _linked("verdict.json"),
        lambda g: (find_saved(str(g.home)), restore("tiny", str(g.home), root=g.home / "new")),
        StorageError,
        "no complete save",
    ),
}

# -- batches ---------------------------------------------------------------------------------------------------------
_RUN = "runs: [{name: a, dataset: d, %s}]"
_POWERS = [
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
]
BATCHES: dict[str, tuple[str | bytes, str]] = {
    "a bomb of aliases": ("\n".join(["a: &a [x, x, x]", *_POWERS]), "an alias"),
    "an alias of itself": ("runs: &a [*a]", "an alias"),
    "deep lists": ("[" * 100_000, "not valid YAML"),
    "deep tables": ("{a: " * 100_000, "not valid YAML"),
    "larger than a batch": ("# " + "x" * (1 << 20), "larger than"),
    "digits": (_RUN % ("epochs: " + "1" * 5000), "a: epochs must be "),
    "digits for a number or a word": (_RUN % ("transpose: " + "1" * 5000), "a: transpose"),
    "a date for a number": (_RUN % "epochs: 2024-05-01", "a: epochs must be "),
    "a date that is none": (_RUN % "epochs: !!timestamp x", "has the tag"),
    "an integer that is none": (_RUN % "epochs: !!int ''", "has the tag"),
    "a call": ("runs: !!python/object/apply:os.system ['touch x']", "has the tag"),
    "a table as a key": (_RUN % "{a: b}: c", "not valid YAML"),
    "a list as a key": (_RUN % "? [a, b] : c", "not valid YAML"),
    "nothing as a key": (_RUN % "~: c", "unknown setting"),
    "a list for a name in defaults": ("defaults: {convert: [3]}\nruns: [{name: a, dataset: d}]", "not one path"),
    "a name with a null byte": ('runs: [{name: "a\\0b", dataset: d}]', "needs a name"),
    "a name without end": ("runs: [{name: " + "a" * 100_000 + ", dataset: d}]", "needs a name"),
    "bytes": (b"\xff\xfe\x00", "not valid YAML"),
    "nothing": ("", "no valid list"),
}

# -- servers ---------------------------------------------------------------------------------------------------------
_OK, _BODY = b"HTTP/1.1 200 OK\r\n", b"RIFF" + b"x" * 2000
_REDIRECTS = [
    *(
        b"http://[::1",
        b"http://",
        b"http://a:b/",
        b"http://x:99999/",
        b"http://[v1.x]/",
        b"file:///etc/passwd",
        b"ftp://x/",
    ),
    *(b"data:,x", b"http://\xe4..\xf6/", b"http://" + b"a" * 300 + b"/", b"", b"//"),
]
_LENGTHS = [b"-5", b"9" * 4000, b"9" * 5000, b"1e5", b"0x10"]
_RANGES = [b"bytes " + b"9" * 5000 + b"-", b"x", b"bytes -5-3/9", b"bytes 99999999999999999-1/2"]
_NAMES = [b"../../x.wav", b'"' + b"\xf0\x9f\x98\x80" * 300 + b'.wav"', b"..", b"a\x00b.wav", b"." + b"w" * 300]
ANSWERS = {
    **{f"a redirect to {to[:20]!r}": b"HTTP/1.1 302 F\r\nLocation: " + to + b"\r\n\r\n" for to in _REDIRECTS},
    **{
        f"a length of {one[:9]!r} ({len(one)})": _OK + b"Content-Length: " + one + b"\r\n\r\n" + _BODY
        for one in _LENGTHS
    },
    **{f"the range {one[:19]!r}": b"HTTP/1.1 206 P\r\nContent-Range: " + one + b"\r\n\r\n" + _BODY for one in _RANGES},
    **{
        f"a file called {one[:9]!r}": _OK + b"Content-Disposition: attachment; filename=" + one + b"\r\n\r\n" + _BODY
        for one in _NAMES
    },
    "a tag of two lines": _OK + b'ETag: "a\r\n b"\r\nContent-Length: 5000\r\n\r\n' + _BODY,
    "no status": b"garbage",
    "nothing": b"",
    "a status of words": b"HTTP/1.1 abc\r\n\r\n",
    "a reason with control characters": b"HTTP/1.1 403 \x1b[2J\r\n\r\n",
    "a wait without end": b"HTTP/1.1 429 S\r\nRetry-After: " + b"9" * 60_000 + b"\r\n\r\n",
    "too many headers": _OK + b"X: y\r\n" * 200 + b"\r\n",
    "a block of less than nothing": _OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nx",
    "a block without a size": _OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
}

"""What rvc_core wrote at faab50f (fixtures/faab50f/make.py) is opened, trained on, converted with and restored.

Where that ran, all is equal to the bit; without vector instructions, to 3e-6. Audio is kept in float16: to 2e-4.
"""

import json
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rvc_core import presets
from rvc_core.audio.waveform import Audio
from rvc_core.conversion.convert import Converter
from rvc_core.experiment import Experiment
from rvc_core.features.retrieval import FeatureIndex
from rvc_core.settings import ConvertSettings, ExtractSettings, PrepareSettings, RuntimeSettings, TrainSettings
from rvc_core.storage.places import restore
from rvc_core.system.documents import read_json
from rvc_core.system.files import sha256_of
from rvc_core.voice import Voice
from rvc_core.workspace.checkpoint import load_newest
from rvc_core.workspace.layout import Layout
from rvc_core.workspace.manifest import ExperimentRecord, Manifest
from rvc_core.workspace.metrics import history
from synth import phrase
from tiny import TINY

FIXTURE = Path(__file__).parents[1] / "fixtures" / "faab50f"
NAME = "Zoë"
SPEC = replace(
    TINY,
    content_width=256,
    inter_channels=8,
    hidden_channels=8,
    filter_channels=16,
    upsample_channels=8,
    source_filter_channels=8,
    speaker_channels=4,
    discriminator_periods=(2,),
)
RUNTIME = RuntimeSettings(device="cpu", threads=1)
TRAINING = {
    "batch_size": 2,
    "save_every_epochs": 100,
    "validate_every_epochs": 100,
    "base_generator": "none",
    "base_discriminator": "none",
    "learning_rate": 2e-3,
    "unlike": "none",
    "precision": "fp32",
}
EXPECTED, ARRAYS = json.loads((FIXTURE / "expected.json").read_text("utf-8")), np.load(FIXTURE / "expected.npz")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the old files, elsewhere than they were written; the preset that they name is theirs."""
    monkeypatch.setitem(presets.PRESETS, "nano", SPEC)
    with tarfile.open(FIXTURE / "written.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def _train_on(layout: Layout, epochs: int) -> None:
    """Go on from step 7, in the midst of the third epoch; each step loses what it lost then."""
    report = Experiment(layout, runtime=RUNTIME).train(TrainSettings.of(epochs=epochs, **TRAINING))
    assert (report.resumed_from, report.steps, report.skipped) == (7, 3 * epochs, 0)
    assert str(layout.root / "0_gt_wavs") in layout.filelist.read_text("utf-8")  # it named the folder of long ago
    rows = [row for row in history(layout) if row.pop("kind") == "step"]
    assert [row["step"] for row in rows] == [*range(1, 3 * epochs + 1)]
    for row, then in zip(rows[7:], EXPECTED["resumed"]["steps"], strict=False):
        assert row == pytest.approx(then, rel=1e-4)


def test_every_stage_finds_its_work_done_but_the_pitch(home: Path) -> None:
    """What is voiced is decided otherwise since: the pitch of old clips is computed again, once."""
    for path in (home / "recordings" / f"{number}.wav" for number in range(4)):
        Audio(phrase(0, seconds=1.1).samples, 16_000).save(path)
        os.utime(path, (1_700_000_000, 1_700_000_000))  # known again by name, size and time
    lab = Experiment.open(NAME, home / "recordings", home=home, runtime=RUNTIME)
    before = _hashes(lab.layout)
    assert lab.prepare(PrepareSettings.of(preset="nano", holdout_minutes=0.01)).skipped
    extracted, indexed = lab.extract(ExtractSettings.of(f0_method="dio")), lab.build_index()
    assert (extracted.done, extracted.skipped, extracted.failed, indexed.skipped) == (4, 0, {}, True)
    assert lab.extract(ExtractSettings.of(f0_method="dio")).skipped == 4
    record, manifest = ExperimentRecord.load(lab.layout), Manifest.load(lab.layout)
    assert (record.name, record.preset, record.spec) == (NAME, "nano", SPEC)
    assert [len(manifest.training), len(manifest.heldout)] == [3, 1] and manifest.seconds_kept > 3.5
    changed = {name for name, digest in _hashes(lab.layout).items() if before.get(name) != digest}
    pitch = {
        name for name in changed if name.startswith(("2a_f0/", "2b-f0nsf/", "heldout/2")) or name == "stamps/f0.json"
    }
    assert pitch and changed - pitch == {"experiment.json", "filelist.txt", "stamps/seen.json"}  # where they are now
    index = FeatureIndex.load(Path(indexed.path))
    assert {"vectors": index.vectors, "lists": index.lists, "note": index.note} == EXPECTED["index"]
    assert np.array_equal(index.features[0], ARRAYS["index_first"])


def test_training_goes_on_as_it_did(home: Path) -> None:
    layout = Layout.of(NAME, home)
    _train_on(layout, epochs=4)
    model = load_newest(layout).generator["model"]
    for name, then in EXPECTED["resumed"]["weights"].items():
        weight = model[name].double().numpy()
        assert np.linalg.norm(weight) == pytest.approx(then["norm"], rel=1e-5), name
        assert weight.sum() == pytest.approx(then["sum"], abs=1e-4 * then["norm"]), name
        assert weight.ravel()[:4] == pytest.approx(then["first"], rel=1e-4, abs=1e-5), name


def test_a_voice_and_its_index_say_what_they_said(home: Path) -> None:
    voice = Voice.load(Layout.of(NAME, home).final_voice, runtime=RUNTIME)
    assert (voice.name, voice.index, voice.warnings) == (NAME, EXPECTED["converted"]["index"], [])

    def distances() -> list[float]:
        """Of the audio, and of what the index changes in it: RMS of the difference over that of what was then."""
        made, plain = (
            voice.convert(
                Audio(ARRAYS["source"].astype(np.float32), 16_000),
                ConvertSettings.of(f0_method="dio", index_rate=rate, seed=3),
            )
            for rate in (0.75, 0.0)
        )
        assert made.transpose == EXPECTED["converted"]["transpose"]
        thens = [ARRAYS[name].astype(np.float64) for name in ("converted", "index_effect")]
        nows = [made.audio.samples, 1000 * (made.audio.samples - plain.audio.samples)]
        return [float(np.std(now - then) / np.std(then)) for now, then in zip(nows, thens, strict=True)]

    assert np.less(distances(), (1e-3, 0.01)).all()
    file, name = voice.converter.voice, "enc_p.emb_phone.weight"
    wrong = replace(file, weights={**file.weights, name: 1.1 * file.weights[name]})
    voice.converter = Converter(wrong, voice.converter.index, RUNTIME)
    assert np.greater(distances(), (1e-3, 0.1)).all()  # a wrong weight is heard


def test_a_save_is_restored_and_goes_on(home: Path) -> None:
    old, new = Layout.of(NAME, home), Layout.of(NAME, home / "another machine")
    assert sorted(path.name for path in (home / "save" / old.slug).iterdir()) == EXPECTED["saved"]
    assert restore(NAME, str(home / "save"), root=home / "another machine").step == 7
    before, after = _hashes(old), _hashes(new)
    assert sorted(after) == EXPECTED["restored"] and read_json(new.checkpoints, object) == read_json(
        old.checkpoints, object
    )
    assert {name for name in after if after[name] != before[name]} <= {new.checkpoints.name}
    _train_on(new, epochs=3)


def _hashes(layout: Layout) -> dict[str, str]:
    return {str(path.relative_to(layout.root)): sha256_of(path) for path in layout.root.rglob("*") if path.is_file()}

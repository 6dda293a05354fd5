"""Voices that leave and arrive: each program's own places, the zips that people share, and nothing half-imported."""

import http.server
import os
import shutil
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rvc_core.errors import MismatchError, ResourceError, RVCError, SettingsError, UnsafeFileError, WeightsError
from rvc_core.features.retrieval import FeatureIndex
from rvc_core.nn.synthesizer import Synthesizer
from rvc_core.presets import VoiceSpec
from rvc_core.voices.library import find_index, save_index
from rvc_core.voices.share import export_voice, import_voices
from rvc_core.workspace.layout import Layout, voice_path
from rvc_core.workspace.voice_file import VoiceFile, VoiceInfo, load_voice, save_voice
from tiny import TINY

RVC = replace(TINY, version="v2", sample_rate=16000, content_width=768, source_filter_channels=0)
INFO = VoiceInfo("Алиса", 60, 120, "contentvec", "", 210.0, author="me | you")


def _save(path: Path, info: VoiceInfo = INFO, spec: VoiceSpec = RVC) -> Path:
    torch.manual_seed(len(path.name))
    save_voice(path, VoiceFile(spec, Synthesizer(spec).state_dict(), info))
    return path


def _rvc(path: Path, spec: VoiceSpec = RVC) -> Path:
    """As RVC WebUI saves it: nothing but its own six keys."""
    content = torch.load(_save(path, spec=spec), weights_only=True)
    torch.save({key: content[key] for key in ("weight", "config", "info", "sr", "f0", "version")}, path)
    return path


def _index(path: Path, vectors: int = 60, width: int = 768) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    FeatureIndex.build(np.random.default_rng(vectors).standard_normal((vectors, width), np.float32)).save(path)
    return path


def _zip(path: Path, folder: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for item in sorted(folder.rglob("*")):
            archive.write(item, item.relative_to(folder))
    return path


def _trained(home: Path, spec: VoiceSpec = RVC, info: VoiceInfo = INFO) -> Path:
    layout = Layout.of(info.name, home)
    path = _save(layout.final_voice, info, spec)
    features = np.random.default_rng(0).standard_normal((80, spec.content_width), np.float32)
    save_index(layout, FeatureIndex.build(features), load_voice(path))
    return path


def _same(one: Path, other: Path) -> bool:
    weights = [load_voice(path).weights for path in (one, other)]
    return weights[0].keys() == weights[1].keys() and all(
        torch.equal(value, weights[1][key]) for key, value in weights[0].items()
    )


# -- export --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("layout", "places"),
    [
        ("rvc", ["assets/weights/{0}.pth", "logs/{0}/added_IVF2_Flat_nprobe_1_{0}_v2.index", "logs/{0}/{0}.md"]),
        ("applio", ["logs/{0}/{0}.pth", "logs/{0}/{0}.index", "logs/{0}/{0}.md"]),
    ],
)
def test_each_program_finds_voice_and_index_where_it_looks(tmp_path: Path, layout: str, places: list[str]) -> None:
    source = _trained(tmp_path)
    report = export_voice(source, tmp_path / "out", layout=layout)
    slug = source.stem
    out = tmp_path / "out"
    written = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert written == sorted(place.format(slug) for place in places)
    assert sorted(report.paths) == sorted(str(tmp_path / "out" / name) for name in written) and slug.isascii()
    exported = tmp_path / "out" / places[0].format(slug)
    assert _same(source, exported) and find_index(exported, load_voice(exported))[0] == out / places[1].format(slug)
    card = (tmp_path / "out" / places[2].format(slug)).read_text("utf-8")
    for words in (
        "# Алиса",
        "v2, 16k, with pitch",
        "contentvec",
        "| epochs | 60 |",
        "210 Hz",
        "synthetic",
        "me &#124; you",
    ):
        assert words in card


@pytest.mark.parametrize("file_format", ["pth", "safetensors"])
def test_a_zip_brings_any_voice_to_another_machine(tiny: None, tmp_path: Path, file_format: str) -> None:
    source = _trained(tmp_path, TINY, replace(INFO, content_name="embedded", content_identity="abc"))
    report = export_voice(source, tmp_path / "out", layout="zip", file_format=file_format)
    [made] = import_voices(report.paths[0], root=tmp_path / "elsewhere")
    assert zipfile.ZipFile(report.paths[0]).read(f"{source.stem}.md").decode().count("rvc_core only") == 1
    again = load_voice(Path(made.path))
    assert _same(source, Path(made.path)) and again.info == load_voice(source).info and made.warnings == []
    assert find_index(Path(made.path), again)[0] == Path(made.index)
    assert FeatureIndex.load(Path(made.index)).vectors == 80


@pytest.mark.parametrize("layout", ["zip", "rvc"])
def test_an_export_asks_for_the_room_that_it_takes(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = _trained(tmp_path)
    taken = sum(Path(path).stat().st_size for path in export_voice(source, tmp_path / "out", layout=layout).paths)
    free = taken / 2
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, free))
    with pytest.raises(ResourceError, match="not enough room in .*full") as caught:
        export_voice(source, tmp_path / "full", layout=layout)
    assert "--output" in caught.value.hint and not (tmp_path / "full").exists()
    free = (2 if layout == "zip" else 1) * taken + 1.1e6
    assert export_voice(source, tmp_path / "full", layout=layout).paths


def test_what_a_program_could_not_use_is_refused_with_the_reason(tiny: None, tmp_path: Path) -> None:
    nano, rvc = _trained(tmp_path, TINY, replace(INFO, content_name="embedded")), _save(tmp_path / "rvc.pth")
    for layout, program in (("rvc", "RVC WebUI"), ("applio", "Applio")):
        with pytest.raises(MismatchError, match=f"{program} cannot use 'Алиса'.*small encoder") as caught:
            export_voice(nano, tmp_path / "out", layout=layout)
        assert "--layout zip" in caught.value.hint
        with pytest.raises(SettingsError, match="cannot open safetensors"):
            export_voice(rvc, tmp_path / "out", layout=layout, file_format="safetensors")
    with pytest.raises(SettingsError, match="unknown layout"):
        export_voice(rvc, tmp_path / "out", layout="gradio")
    assert not (tmp_path / "out").exists()


# -- import --------------------------------------------------------------------------------------------------------
def test_a_zip_as_people_share_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RVC_HOME", str(tmp_path / "home"))
    stuff = tmp_path / "stuff"
    _rvc(stuff / "My Voice (v2)" / "weights" / "singer_e60_s120.pth")
    _index(stuff / "My Voice (v2)" / "logs" / "added_IVF2_Flat_nprobe_1_anything_v2.index")
    _index(stuff / "My Voice (v2)" / "logs" / "added_IVF2_Flat_nprobe_1_anything_v1.index", width=256)
    (stuff / "My Voice (v2)" / "logs" / "trained_IVF2_Flat_nprobe_1_anything_v2.index").write_bytes(b"IwFl")
    torch.save({"model": {}, "iteration": 1, "optimizer": {}, "learning_rate": 1e-4}, stuff / "G_2333333.pth")
    (stuff / "__MACOSX").mkdir()
    (stuff / "__MACOSX" / "._singer.pth").write_bytes(b"\x00\x05\x16\x07")
    (stuff / "read me.txt").write_text("enjoy")
    [made] = import_voices(_zip(tmp_path / "v.zip", stuff))
    assert made.name == "singer" and made.warnings == [] and made.architecture == "v2, 16k, with pitch"
    assert voice_path("singer") == Path(made.path) == tmp_path / "home" / "logs" / "singer" / "singer.pth"
    assert FeatureIndex.load(Path(made.index)).dimension == 768
    assert sorted(path.name for path in Path(made.path).parent.iterdir()) == [
        "added_IVF1_Flat_nprobe_1_singer_v2.index",
        "singer.pth",
    ]
    assert [path.name for path in (tmp_path / "home" / "logs").iterdir()] == ["singer"]


def test_several_voices_each_get_their_own_index(tmp_path: Path) -> None:
    stuff = tmp_path / "stuff"
    for name in ("anna", "anna_2", "ben"):
        _rvc(stuff / f"{name}.pth")
    _index(stuff / "added_IVF1_Flat_nprobe_1_anna_2_v2.index", 70)
    _index(stuff / "anna.index", 60)  # Applio's name; a part of it is in "anna_2"
    _rvc(stuff / "ben_e10_s20.pth")
    _rvc(stuff / "c" / "model.pth")
    _index(stuff / "c" / "odd name.index", 90)
    _rvc(stuff / "d" / "model.pth")
    made = {voice.name: voice for voice in import_voices(stuff, root=tmp_path)}
    vectors = {name: FeatureIndex.load(Path(voice.index)).vectors if voice.index else 0 for name, voice in made.items()}
    assert vectors == {"anna": 60, "anna_2": 70, "ben": 0, "c": 90, "d": 0}
    assert made["ben"].warnings == ["no index came with it"]
    assert [path.name for path in Layout.of("ben", tmp_path).voices()] == ["ben_e60_s0.pth", "ben.pth"]
    assert _same(Path(made["ben"].path), stuff / "ben.pth")


def test_a_bare_file_under_a_name_of_ones_choice(tmp_path: Path) -> None:
    source = _rvc(tmp_path / "downloads" / "model (1).pth")
    _index(tmp_path / "downloads" / "somebody.index")  # another download, not of this voice
    [made] = import_voices(source, name="Мария", root=tmp_path)
    assert made.name == load_voice(Path(made.path)).info.name == "Мария" and made.index == ""
    with pytest.raises(SettingsError, match="'Мария' already exists"):
        import_voices(source, name="Мария", root=tmp_path)
    _index(tmp_path / "downloads" / "added_IVF1_Flat_nprobe_1_model (1)_v2.index")
    [made] = import_voices(source, name="with index", root=tmp_path)
    assert Path(made.index).name == f"added_IVF1_Flat_nprobe_1_{Path(made.path).stem}_v2.index"


def test_an_index_of_another_encoder_or_voice_stays_out(tiny: None, tmp_path: Path) -> None:
    info = replace(INFO, name="v", content_name="embedded", content_identity="abc")
    for name, identity in (("v", "xyz"), ("w", "abc")):
        stuff = tmp_path / name
        voice = load_voice(_save(stuff / "v.pth", info, TINY))
        other = replace(voice, info=replace(info, name=name, content_identity=identity))
        features = np.random.default_rng(0).standard_normal((80, 8), np.float32)
        save_index(Layout(stuff, name), FeatureIndex.build(features), other)
        assert import_voices(stuff, name=f"new {name}", root=tmp_path)[0].index == ""


class _Harmful:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("true",)


def test_nothing_is_half_imported(tmp_path: Path) -> None:
    def refused(source: Path, error: type[RVCError], said: str) -> None:
        with pytest.raises(error, match=said) as caught:
            import_voices(source, root=tmp_path / "home")
        assert caught.value.hint and list((tmp_path / "home" / "logs").iterdir()) == []

    stuff = tmp_path / "stuff"
    _rvc(stuff / "a.pth")
    torch.save({"weight": _Harmful(), "config": []}, stuff / "b.pth")
    refused(_zip(tmp_path / "hostile.zip", stuff), UnsafeFileError, "system")
    silent = load_voice(_rvc(stuff / "b.pth"))
    silent.weights["dec.conv_post.weight"].zero_()
    save_voice(stuff / "b.pth", silent)
    refused(stuff, WeightsError, "produces no sound")  # after a was taken in
    with zipfile.ZipFile(tmp_path / "slip.zip", "w") as archive:
        archive.writestr("../../a.pth", "x")
    refused(tmp_path / "slip.zip", UnsafeFileError, "a.pth")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", WeightsError, "no voice in")
    refused(tmp_path / "absent.pth", WeightsError, "no such file")
    _rvc(stuff / "c.pth")
    (stuff / "b.pth").unlink()
    with pytest.raises(SettingsError, match="one name for 2 voices: a, c"):
        import_voices(stuff, name="x", root=tmp_path / "home")
    (stuff / "c.pth").write_bytes((stuff / "c.pth").read_bytes()[:2000])
    (tmp_path / "home" / "logs" / f".part-{2**22 + 1}-killed" / "x").mkdir(parents=True)  # no process has this number
    [made] = import_voices(stuff, root=tmp_path / "home")
    assert made.warnings == ["no index came with it", "left out: c.pth is damaged or truncated"]
    assert [path.name for path in (tmp_path / "home" / "logs").iterdir()] == ["a"]


# -- from the web --------------------------------------------------------------------------------------------------
@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "web").mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(tmp_path / "web"))

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_voices_from_the_web(tmp_path: Path, server: str) -> None:
    stuff = tmp_path / "stuff"
    _rvc(stuff / "anna.pth")
    _index(stuff / "anna.index")
    _zip(tmp_path / "web" / "my voice.zip", stuff)
    (tmp_path / "web" / "download").write_bytes((tmp_path / "web" / "my voice.zip").read_bytes())
    (tmp_path / "web" / "anna.pth").write_bytes((stuff / "anna.pth").read_bytes())
    (tmp_path / "web" / "page").write_text("<!doctype html><title>Sign in</title>")
    for number, address in enumerate(("my%20voice.zip?download=true", "download?id=7", "anna.pth?x=1")):
        [made] = import_voices(f"{server}/{address}", name=f"voice {number}", root=tmp_path)
        assert _same(Path(made.path), stuff / "anna.pth") and bool(made.index) == (number < 2)
    with pytest.raises(WeightsError, match="web page"):
        import_voices(f"{server}/page", root=tmp_path)
    with pytest.raises(WeightsError, match="404"):
        import_voices(f"{server}/absent.zip", root=tmp_path)
    assert not [path for path in (tmp_path / "logs").iterdir() if path.name.startswith(".")]

"""Text in a voice: what is read, when it is said, what happens to sentences that fail, and the engines' real calls."""

import importlib.util
import inspect
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from converters import Whistler
from rvc_core.audio.waveform import Audio, frame_rms, read_audio
from rvc_core.cli import main
from rvc_core.conversion import speakers
from rvc_core.conversion.convert import Converter
from rvc_core.conversion.script import cues, read_script, sentences
from rvc_core.conversion.speak import SpeakResult, speak
from rvc_core.conversion.speakers import EspeakProgram, GsvSpeaker, PocketSpeaker, speaker_of
from rvc_core.errors import AudioError, ResourceError, RVCError, SettingsError, UnsafeFileError
from rvc_core.settings import ConvertSettings, SpeakSettings
from rvc_core.voice import Voice

Make = Callable[..., Converter]
RATE = 16_000


class Humming:
    """A speaker that hums 60 ms a letter at its own speed, in a tenth of a second of silence; it fails at one word."""

    name = "humming"

    def __init__(self) -> None:
        self.asked: list[tuple[str, float]] = []

    def __call__(self, text: str, *, language: str, voice: str = "", speed: float = 1.0) -> Audio:
        self.asked.append((text, speed))
        if "impossible" in text:
            raise AudioError("the engine has no such word", hint="change it")
        length = round(0.06 * len(text) / speed * RATE)
        hum = 0.3 * np.sin(2 * np.pi * 150 * np.arange(length) / RATE)
        return Audio(np.pad(hum, 1600).astype(np.float32), RATE)


def _spoken(converter: Converter, text: str, speaker: object = None, **changes: object) -> SpeakResult:
    converter._synthesizer = Whistler()
    plain = ConvertSettings.of(f0_method="dio", transpose=0, rms_mix_rate=0.0, index_rate=0)
    return speak(converter, SpeakSettings.of(text=text, **changes), plain, speaker=speaker or Humming())


def _onsets(audio: Audio) -> list[float]:
    """Where sound begins after 0.15 s of silence or more."""
    is_loud = frame_rms(audio.samples, audio.sample_rate // 100, 2) > 0.01
    return [at / 100 for at in np.flatnonzero(is_loud) if not is_loud[max(0, at - 15) : at].any()]


# -- what is read --------------------------------------------------------------------------------------------------
def test_text_is_split_at_sentences_and_no_word_is_lost() -> None:
    text = (
        'Mr. J. Smith paid 3.50 on the 5th. "Why?" he asked. No. 7 was e.g. late... and so it\n'
        "went! 你好。再见！\n\n# Title\nA verse\nAnother verse\n\n* an item\n\n🙂\n\n"
    )
    found = sentences(text)
    assert [one.text for one in found] == [
        "Mr. J. Smith paid 3.50 on the 5th.",
        '"Why?" he asked.',
        "No. 7 was e.g. late... and so it went!",
        "你好。",
        "再见！",
        "Title",
        "A verse",
        "Another verse",
        "an item",
    ]
    assert [one.pause_seconds > 0.5 for one in found] == [False] * 4 + [True, False, False, True, True]


def test_a_text_of_a_hundred_thousand_characters_is_cut_into_pieces_that_engines_take() -> None:
    text = "word " * 10_000 + "x" * 50_000
    found = sentences(text)
    assert max(len(one.text) for one in found) <= 300
    assert "".join(one.text for one in found).replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "latin-1"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_text_files_are_read_whatever_wrote_them(encoding: str, newline: str, tmp_path: Path) -> None:
    file = tmp_path / "A File.TXT"
    file.write_bytes("Olá, você!\n\nAté amanhã.".replace("\n", newline).encode(encoding))
    assert [one.text for one in read_script(str(file))] == ["Olá, você!", "Até amanhã."]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "does not exist"),
        (b"", "nothing to say"),
        (b" \r\n ... !!! ", "nothing to say"),
        (b"RIFF\x01\x02\x03\x04WAVEfmt \x00\x01\x02" * 9, "not a text file"),
    ],
)
def test_files_without_words_are_one_clear_line(content: bytes | None, told: str, tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=told) as caught:
        read_script(str(file))
    assert caught.value.hint


def test_subtitles_are_read_with_their_times_in_any_order() -> None:
    text = (
        "\ufeff2\r\n00:00:05,000 --> 00:00:06,500\r\n<i>Second</i> cue\r\non two lines\r\n\r\n\r\n"
        "1\r\n00:00:01.50 --> 00:00:03,000 X1:10\r\n{\\an8}First\r\n\r\n3\r\n00:01:00,000 --> 00:01:01,000\r\n♪\r\n"
    )
    found = cues(text, "a.srt")
    assert [(one.text, one.cue) for one in found] == [
        ("First", (1.5, 3.0)),
        ("Second cue on two lines", (5.0, 6.5)),
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1\n00:00:05,000 --> 00:00:05,000\nHello", "cue 1 ends before it begins"),
        ("1\n00:00:01,000 --> 00:00:02,000\nHello\n\n2\nno time here\nBye", "cue 2 has no time: '2'"),
    ],
)
def test_subtitles_that_are_wrong_name_the_cue(text: str, told: str) -> None:
    with pytest.raises(SettingsError, match=f"a.srt: {told}"):
        cues(text, "a.srt")


# -- when it is said -----------------------------------------------------------------------------------------------
def test_sentences_follow_with_their_pauses_and_a_failed_one_is_named(make: Make) -> None:
    made = _spoken(make(), "A first sentence.\n\nAn impossible one.\n\nAnd a last sentence.")
    assert [one.text for one in made.spoken] == ["A first sentence.", "And a last sentence."]
    assert made.failed == [
        {"text": "sentence 2 (An impossible one.)", "error": "the engine has no such word", "hint": "change it"}
    ]
    first, second = made.spoken
    assert second.start_seconds - first.start_seconds - first.seconds == pytest.approx(0.7)
    assert _onsets(made.audio) == pytest.approx([one.start_seconds for one in made.spoken], abs=0.06)
    pause = made.audio[first.start_seconds + first.seconds + 0.3 : second.start_seconds - 0.1]
    assert not pause.samples.any()  # the voice does not hiss where nobody speaks


def test_when_every_sentence_fails_that_is_the_error(make: Make) -> None:
    with pytest.raises(AudioError, match="no sentence could be spoken: the engine has no such word"):
        _spoken(make(), "This is impossible.")


def test_speed_is_the_engines_and_a_wrong_language_stops_at_once(make: Make) -> None:
    slow, fast = (_spoken(make(), "Twenty letters here.", speed=speed) for speed in (1.0, 2.0))
    assert slow.spoken[0].seconds == pytest.approx(2 * fast.spoken[0].seconds, rel=0.05)

    class Monoglot(Humming):
        def __call__(self, text: str, *, language: str, voice: str = "", speed: float = 1.0) -> Audio:
            raise SettingsError(f"I do not speak {language}", hint="en")

    with pytest.raises(SettingsError, match="do not speak xx"):
        _spoken(make(), "One. Two.", Monoglot(), language="xx")


def test_subtitles_keep_their_times(make: Make, tmp_path: Path) -> None:
    """Long and short cues, a cue that cannot fit, a long gap, two that overlap: each begins within 100 ms."""
    file = tmp_path / "film.srt"
    wanted = [
        (0.5, 2.0, "Twenty-five letters here."),  # 1.5 s at speed 1
        (3.0, 4.1, "Twenty-five letters here."),  # needs 1.36
        (5.0, 7.0, "Twenty-five letters here."),  # 0.8 makes 1.88 s
        (9.0, 9.5, "Twenty-five letters here."),  # cannot fit
        (130.0, 131.5, "Twenty-five letters here."),
        (131.0, 132.5, "An overlapping cue is here"),
    ]
    clock = lambda at: f"00:{int(at) // 60:02}:{int(at) % 60:02},{round(at % 1 * 1000):03}"
    blocks = [f"{place}\r\n{clock(a)} --> {clock(b)}\r\n{text}\r\n" for place, (a, b, text) in enumerate(wanted, 1)]
    file.write_bytes("\r\n".join(blocks[::-1]).encode())
    speaker = Humming()
    made = _spoken(make(), str(file), speaker)
    assert [round(one.start_seconds, 3) for one in made.spoken] == [start for start, _, _ in wanted]
    assert [one.speed for one in made.spoken] == pytest.approx([1.0, 1.39, 0.8, 1.5, 1.0, 1.06], abs=0.06)
    assert min(speed for _, speed in speaker.asked) >= 0.8 and max(speed for _, speed in speaker.asked) <= 1.5
    for one, (start, stop, _) in zip(made.spoken, wanted, strict=True):
        assert one.late_seconds == (0 if start != 9.0 else pytest.approx(0.54, abs=0.06))
        part = frame_rms(made.audio[start - 0.2 : start + 0.3].samples, 160, 2) > 0.01
        if start != 131.0:
            assert abs(part.argmax() / 100 - 0.2) < 0.1
        if not one.late_seconds and start < 100:
            after = made.audio[stop + 0.2 : stop + 0.4].samples
            assert np.abs(after).max(initial=0) < 0.01
    assert made.warnings[0] == "cue 3 (Twenty-five letters here.) ends 0.5 s late, even at speed 1.5: shorten it"
    assert [line for line in made.warnings if "overlaps" in line] == ["cue 2 overlaps cue 1: both are heard at once"]
    assert made.audio.seconds == pytest.approx(132.5, abs=0.2)


def test_long_texts_are_converted_in_parts_with_one_transposition(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    converter, seen = make(f0_median_hz=300.0), []
    convert = Converter.convert

    def spying(self: Converter, source: Audio, settings: ConvertSettings, **rest: object) -> object:
        seen.append((source.seconds, settings.transpose))
        return convert(self, source, settings, **rest)

    monkeypatch.setattr(Converter, "convert", spying)
    converter._synthesizer = Whistler()
    text = "Eighty letters are in this sentence, which makes about five seconds of humming it. " * 15
    made = speak(converter, SpeakSettings(text=text), ConvertSettings.of(f0_method="dio"), speaker=Humming())
    assert max(seconds for seconds, _ in seen) <= 60 and len(seen) == 2
    assert seen[0][1] == "auto" and seen[1][1] == made.transpose == 12
    assert made.audio.seconds == pytest.approx(sum(one.seconds for one in made.spoken) + 14 * 0.25, abs=0.1)


# -- engines -------------------------------------------------------------------------------------------------------
needs_espeak = pytest.mark.skipif(
    not (importlib.util.find_spec("espeakng_loader") or speakers.shutil.which("espeak-ng")), reason="no espeak-ng"
)


@needs_espeak
@pytest.mark.parametrize("language", ["en", "pt-br", "pt", "fr", "de", "ja", "zh", "EN_US"])
def test_espeak_speaks_many_languages(language: str) -> None:
    speaker, warnings = speaker_of("espeak-ng", language)
    slow, fast = (speaker("1 2 3 [[a]] \x01+50p", language=language, speed=speed) for speed in (1.0, 1.5))
    assert not warnings and slow.sample_rate == 22050 and np.abs(slow.samples).max() > 0.05
    assert 1.25 < slow.seconds / fast.seconds < 1.9


@needs_espeak
@pytest.mark.parametrize(("language", "voice"), [("xx", ""), ("", ""), ("en", "nobody"), ("../../etc", "")])
def test_espeak_without_the_language_is_one_clear_line(language: str, voice: str) -> None:
    speaker, _ = speaker_of("espeak-ng", language)
    with pytest.raises(SettingsError, match="espeak-ng does not have the (language|voice)") as caught:
        speaker("Hello.", language=language, voice=voice)
    assert "pt-br" in caught.value.hint


def test_the_program_and_the_library_are_called_alike(tmp_path: Path) -> None:
    """A program in place of espeak-ng that shows what it was given, and answers as the real one does."""
    header = b"RIFF\x24\xf0\xff\x7fWAVEfmt \x10\0\0\0\x01\0\x01\0\x22\x56\0\0\x44\xac\0\0\x02\0\x10\0data\0\xf0\xff\x7f"
    program = tmp_path / "espeak-ng"
    program.write_text(
        f"#!{sys.executable}\nimport sys\n"
        "if sys.argv[2] == 'xx': sys.exit('Error: The specified espeak-ng voice does not exist.')\n"
        f"open({str(tmp_path / 'told')!r}, 'w').write(repr((sys.argv[1:], sys.stdin.buffer.read().decode())))\n"
        f"sys.stdout.buffer.write({header!r} + b'\\x00\\x10' * 2205)\n"
    )
    program.chmod(0o755)
    speaker = EspeakProgram(str(program))
    audio = speaker("Olá [[x]]\x01", language="pt-BR", voice="+f3", speed=1.2)
    assert audio.seconds == pytest.approx(0.1) and audio.samples[0] == 0.125
    words, text = eval((tmp_path / "told").read_text())
    assert words == ["-v", "pt-br+f3", "-s", "210", "-b", "1", "--stdin", "--stdout"] and text == "Olá [ [x]] "
    with pytest.raises(SettingsError, match="the language 'xx'"):
        speaker("Hello.", language="xx")


def test_a_missing_engine_says_what_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speakers.shutil, "which", lambda name: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for engine, told in (("auto", "espeak-ng"), ("pocket-tts", "pocket-tts"), ("gsv-tts-lite", "gsv-tts-lite")):
        with pytest.raises(ResourceError, match=f"{told} is not installed") as caught:
            speaker_of(engine, "en")
        assert "install" in caught.value.hint


class PretendedPocket:
    """pocket_tts.TTSModel, with its signatures and results, and no weights."""

    sample_rate = 24_000
    loaded: list[str | None] = []
    offline = False

    @classmethod
    def load_model(
        cls,
        language=None,
        config=None,
        temp=None,
        sampler_decode_steps=1,
        noise_clamp=None,
        eos_threshold=None,
        quantize=False,
        checkpoint=None,
        lsd_decode_steps=None,
    ):
        if cls.offline:
            raise FileNotFoundError("we cannot find the requested files in the local cache\nmore")
        cls.loaded.append(language)
        return cls()

    def get_state_for_audio_prompt(self, audio_conditioning, truncate=False):
        if audio_conditioning not in ("alba", "rafael"):
            raise ValueError(f"unknown voice {audio_conditioning}")
        return {"voice": audio_conditioning}

    def generate_audio(
        self, model_state, text_to_generate, max_tokens=50, frames_after_eos=None, copy_state=True
    ) -> torch.Tensor:
        if not text_to_generate.strip():
            raise ValueError("empty")
        hz = {"alba": 200, "rafael": 120}[model_state["voice"]]
        return 0.2 * torch.sin(2 * torch.pi * hz * torch.arange(48_000) / 24_000)


@pytest.fixture
def pocket(monkeypatch: pytest.MonkeyPatch) -> type[PretendedPocket]:
    module = types.ModuleType("pocket_tts")
    module.TTSModel = PretendedPocket  # type: ignore[attr-defined]
    module.__spec__ = importlib.machinery.ModuleSpec("pocket_tts", None)
    monkeypatch.setitem(sys.modules, "pocket_tts", module)
    monkeypatch.setattr(PretendedPocket, "loaded", [])
    monkeypatch.setattr(PretendedPocket, "offline", False)
    return PretendedPocket


def test_pocket_loads_each_language_once_and_stretches_to_the_speed(pocket: type[PretendedPocket]) -> None:
    speaker = PocketSpeaker()
    normal, fast, other = (
        speaker("Oi.", language=language, speed=speed) for language, speed in (("pt-br", 1), ("pt", 1.5), ("en", 1))
    )
    assert pocket.loaded == ["portuguese", "english"] and normal.sample_rate == 24_000
    assert fast.seconds == pytest.approx(normal.seconds / 1.5, rel=0.01)
    strongest = [np.abs(np.fft.rfft(one.samples[:24_000])).argmax() for one in (normal, other)]
    assert strongest == [120, 200]
    with pytest.raises(SettingsError, match="does not speak 'ja'"):
        speaker("Hi.", language="ja")
    with pytest.raises(SettingsError, match="cannot use the voice 'nobody'"):
        speaker("Hi.", language="en", voice="nobody")


@needs_espeak
def test_auto_takes_pocket_where_it_can_and_says_when_it_cannot(pocket: type[PretendedPocket]) -> None:
    assert speaker_of("auto", "en")[0].name == "pocket-tts"
    assert speaker_of("auto", "ja")[0].name == "espeak-ng"
    pocket.offline = True
    speaker, warnings = speaker_of("auto", "en")
    assert speaker.name == "espeak-ng" and "cannot load its weights: we cannot find" in warnings[0]
    with pytest.raises(ResourceError, match="pocket-tts cannot load its weights") as caught:
        PocketSpeaker()("Hi.", language="en")
    assert "Hugging Face" in caught.value.hint


class PretendedGsv:
    """gsv_tts.TTS, with the signatures of what is called, and no weights."""

    def __init__(
        self,
        gpt_cache=(),
        sovits_cache=(),
        models_dir=None,
        device=None,
        dtype=None,
        use_flash_attn=False,
        use_bert=False,
        use_jieba_fast=False,
        always_load_cnhubert=False,
        always_load_sv=False,
    ):
        self.models = []

    def load_gpt_model(self, *model_paths):
        self.models += model_paths

    def load_sovits_model(self, *model_paths):
        self.models += model_paths

    def infer(
        self,
        spk_audio_path,
        prompt_audio_path,
        prompt_audio_text,
        text,
        text_language="auto",
        prompt_language="auto",
        return_subtitles=False,
        top_k=15,
        top_p=1.0,
        temperature=1.0,
        repetition_penalty=1.35,
        noise_scale=0.5,
        speed=1.0,
        gpt_model=None,
        sovits_model=None,
    ):
        assert [gpt_model, sovits_model] == self.models and prompt_audio_text == "What is said."
        samples = 0.1 * np.sin(np.arange(round(32_000 / speed)))
        return types.SimpleNamespace(audio_data=samples.astype(np.float32), samplerate=32_000)


def test_gpt_sovits_checkpoints_speak_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("gsv_tts")
    module.TTS = PretendedGsv  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gsv_tts", module)
    speaker, folder = GsvSpeaker(), tmp_path / "ann"
    with pytest.raises(SettingsError, match="not a voice of GPT-SoVITS"):
        speaker("Hi.", language="en", voice=str(folder))
    folder.mkdir()
    torch.save({"weight": {"a": torch.zeros(2)}}, folder / "ann-e15.ckpt")
    torch.save({"weight": {"a": torch.zeros(2)}}, folder / "ann_e8.pth")
    (folder / "ann_e8.pth").write_bytes(b"05" + (folder / "ann_e8.pth").read_bytes()[2:])  # as V2Pro is marked
    Audio(np.full(4 * RATE, 0.1, np.float32), RATE).save(folder / "clip.wav")
    with pytest.raises(SettingsError, match="clip.wav is not a clip of 3 to 10 s with its words in clip.txt"):
        speaker("Hi.", language="en", voice=str(folder))
    (folder / "clip.txt").write_text("What is said.")
    made = speaker("Hi.", language="en", voice=str(folder), speed=1.25)
    assert made.sample_rate == 32_000 and made.seconds == pytest.approx(0.8)
    with pytest.raises(SettingsError, match="does not speak 'pt'"):
        speaker("Hi.", language="pt", voice=str(folder))
    (folder / "zz.ckpt").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(UnsafeFileError):
        GsvSpeaker()("Hi.", language="en", voice=str(folder))

    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return print, ("run",)

    torch.save(Payload(), folder / "zz.ckpt")
    with pytest.raises(UnsafeFileError, match="would call builtins.print"):
        GsvSpeaker()("Hi.", language="en", voice=str(folder))


@pytest.mark.parametrize(
    ("package", "name", "pretended", "methods"),
    [
        ("pocket_tts", "TTSModel", PretendedPocket, ["load_model", "get_state_for_audio_prompt", "generate_audio"]),
        ("gsv_tts", "TTS", PretendedGsv, ["__init__", "load_gpt_model", "load_sovits_model", "infer"]),
    ],
)
def test_the_doubles_have_the_packages_signatures(package: str, name: str, pretended: type, methods: list[str]) -> None:
    real = getattr(pytest.importorskip(package), name)
    for method in methods:
        ours, theirs = (inspect.signature(getattr(one, method)).parameters for one in (pretended, real))
        assert list(ours) == list(theirs), method


# -- the command ---------------------------------------------------------------------------------------------------
@needs_espeak
def test_the_command_speaks_and_reports(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    converter = make()
    converter._synthesizer = Whistler()
    monkeypatch.setattr(Voice, "load", lambda *_, **__: Voice(tmp_path / "v.pth", converter, "", []))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "v").touch()
    (tmp_path / "news.txt").write_text("One day the train was late.\n\nTwo cups of tea.")
    options = ["--transpose", "0", "--f0-method", "dio", "--output", str(tmp_path / "out"), "--json", "--quiet"]
    assert main(["speak", "v", str(tmp_path / "news.txt"), "--engine", "espeak-ng", *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["engine"] == "espeak-ng" and len(report["spoken"]) == 2 and not report["failed"]
    assert report["output"] == str(tmp_path / "out" / "news_v.wav")
    assert read_audio(report["output"]).seconds == pytest.approx(report["seconds"], abs=0.01)
    assert report["words"]["words"] == 10 and report["words"]["unknown"] == 0
    assert report["words"]["engine_error_rate"] < report["words"]["error_rate"] <= 1.5  # whistling has no words
    for text, told in (("", "nothing to say"), (str(tmp_path / "gone.txt"), "gone.txt does not exist")):
        assert main(["speak", "v", text, *options]) == 1
        assert told in json.loads(capsys.readouterr().out)["error"]
    assert main(["speak", "v", "Hi.", "--language", "qq", *options]) == 1
    assert "does not have the language 'qq'" in json.loads(capsys.readouterr().out)["error"]


def test_the_result_is_named_after_the_text(make: Make, tmp_path: Path) -> None:
    voice = Voice(tmp_path / "v.pth", make(), "", [])
    with pytest.raises(RVCError, match=r"a.wav is not flac"):
        voice.speak("Hi.", settings=ConvertSettings.of(output_format="flac"), output=tmp_path / "a.wav")

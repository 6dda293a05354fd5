"""Engines that speak a text. None is needed for anything else, and each is a package or a program of its own.

A `Speaker` takes text, language, voice and speed, and returns speech. espeak-ng (GPL) speaks about a hundred languages
without a network. pocket-tts (MIT) sounds like a person in seven, and downloads its weights. gsv-tts-lite (MIT) runs
the checkpoints of GPT-SoVITS.
"""

import ctypes
import functools
import importlib.util
import io
import math
import shutil
import struct
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..audio.waveform import Audio
from ..errors import AudioError, ResourceError, SettingsError, UnsafeFileError
from ..settings import SpeakSettings
from ..system.pickle_scan import PickleScan

_WORDS_PER_MINUTE = 175  # espeak-ng's own speed
_LONGEST_SECONDS = 120  # one sentence
_RETRIEVE, _WITHOUT_EXIT, _RATE, _CHARACTER, _UTF8 = 2, 0x8000, 1, 1, 1  # of espeak-ng's speak_lib.h
_ESPEAK_NAMES = {"zh": "cmn", "no": "nb"}
_ESPEAK = "install it with: apt-get install espeak-ng, or: pip install espeakng-loader"
_POCKET = {  # by language, pocket-tts's name of its model
    "en": "english",
    "fr": "french",
    "de": "german",
    "pt": "portuguese",
    "it": "italian",
    "es": "spanish",
    "nl": "dutch",
}
_POCKET_VOICES = {"it": "giovanni", "es": "lola", "de": "juergen", "pt": "rafael", "fr": "estelle", "nl": "daan"}
_GSV_LANGUAGES = ("en", "ja", "zh")
_STRETCHED = 1024  # samples of one spectrum
_CLIP_SECONDS = (3.0, 10.0)
_HARMLESS, _ELSEWHERE = {"utils.HParams"}, "use a checkpoint from somebody you trust"


class Speaker(Protocol):
    """Speaks a text.

    Raises
    ------
    SettingsError
        When it lacks the language or the voice.
    AudioError
        When this text cannot be spoken.
    """

    name: str

    def __call__(self, text: str, *, language: str, voice: str = "", speed: float = 1.0) -> Audio:
        """Speak; `speed` 1 is the engine's own."""


# -- espeak-ng -----------------------------------------------------------------------------------------------------
class EspeakProgram:
    """espeak-ng as a program of the system."""

    name = "espeak-ng"

    def __init__(self, program: str) -> None:
        self._program = program

    def __call__(self, text: str, *, language: str, voice: str = "", speed: float = 1.0) -> Audio:
        """Speak through the program's standard output."""
        rate = round(speed * _WORDS_PER_MINUTE)
        words = [self._program, "-v", _espeak_voice(language, voice), "-s", str(rate), "-b", "1", "--stdin", "--stdout"]
        try:
            done = subprocess.run(
                words, input=_espeak_text(text).encode(), capture_output=True, timeout=_LONGEST_SECONDS
            )
        except subprocess.TimeoutExpired:
            raise AudioError("espeak-ng did not finish the sentence", hint="make it shorter") from None
        said = done.stderr.decode(errors="replace").strip()
        if "voice" in said and done.returncode:
            raise _unknown_voice(language, voice)
        at = done.stdout.find(b"data", 12)
        if done.returncode or not done.stdout.startswith(b"RIFF") or at < 0:
            raise AudioError(f"espeak-ng failed: {said[-200:] or done.returncode}", hint="change the sentence")
        (rate_hz,) = struct.unpack("<I", done.stdout[24:28])  # sizes in the header are those of an endless stream
        samples = np.frombuffer(done.stdout[at + 8 : at + 8 + (len(done.stdout) - at - 8) // 2 * 2], "<i2")
        return Audio(samples.astype(np.float32) / 32768, rate_hz)


class EspeakLibrary:
    """espeak-ng as the library inside the wheel espeakng-loader."""

    name = "espeak-ng"

    def __init__(self, library: Any, rate_hz: int) -> None:
        self._library, self._rate_hz, self._pieces = library, rate_hz, list[np.ndarray]()
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self._callback = kind(self._take)  # kept: the library calls it later
        library.espeak_SetSynthCallback(self._callback)

    @classmethod
    @functools.cache
    def load(cls) -> "EspeakLibrary":
        """Load it, once per process: the library has one state."""
        import espeakng_loader

        try:
            library = ctypes.CDLL(espeakng_loader.get_library_path())
            data = str(Path(espeakng_loader.get_data_path()))
        except (OSError, RuntimeError) as error:
            raise ResourceError(f"espeakng-loader cannot be used: {error}", hint=_ESPEAK) from error
        rate_hz = library.espeak_Initialize(_RETRIEVE, 0, data.encode(), _WITHOUT_EXIT)
        if rate_hz <= 0:
            raise ResourceError("espeakng-loader's espeak-ng finds no data", hint=_ESPEAK)
        return cls(library, rate_hz)

    def _take(self, samples: Any, count: int, events: Any) -> int:
        if samples and count:
            self._pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def __call__(self, text: str, *, language: str, voice: str = "", speed: float = 1.0) -> Audio:
        """Speak into memory."""
        if self._library.espeak_SetVoiceByName(_espeak_voice(language, voice).encode()):
            raise _unknown_voice(language, voice)
        self._library.espeak_SetParameter(_RATE, round(speed * _WORDS_PER_MINUTE), 0)
        self._pieces.clear()
        encoded = _espeak_text(text).encode() + b"\0"
        failed = self._library.espeak_Synth(encoded, len(encoded), 0, _CHARACTER, 0, _UTF8, None, None)
        if failed or self._library.espeak_Synchronize():
            raise AudioError(f"espeak-ng failed with its error {failed}", hint="change the sentence")
        samples = np.concatenate([*self._pieces, np.zeros(0, np.int16)])
        return Audio(samples.astype(np.float32) / 32768, self._rate_hz)


def _espeak_voice(language: str, voice: str) -> str:
    """Name for espeak-ng: a voice as ``en-gb``, or a variant of the language's, as ``+f3``."""
    own = _ESPEAK_NAMES.get(language.lower(), language.lower().replace("_", "-"))
    if not own:  # the program would speak English
        raise _unknown_voice(language, voice)
    return own + voice if voice.startswith("+") or not voice else voice


def _espeak_text(text: str) -> str:
    """Text without what espeak-ng takes as commands: phonemes in double brackets, control characters."""
    return "".join(letter if letter.isprintable() else " " for letter in text).replace("[[", "[ [")


def _unknown_voice(language: str, voice: str) -> SettingsError:
    what = f"the voice {voice!r} for {language!r}" if voice else f"the language {language!r}"
    return SettingsError(f"espeak-ng does not have {what}", hint="use a code such as en, pt-br, fr, de, es, ja or cmn")


def _espeak() -> Speaker:
    if program := shutil.which("espeak-ng"):
        return EspeakProgram(program)
    if importlib.util.find_spec("espeakng_loader"):
        return EspeakLibrary.load()
    raise ResourceError("espeak-ng is not installed", hint=_ESPEAK)


# -- engines whose speech sounds like a person's -------------------------------------------------------------------
class PocketSpeaker:
    """pocket-tts by Kyutai: a network of 100 million parameters. Each language is a model of its own."""

    name = "pocket-tts"

    def __init__(self) -> None:
        self._models: dict[str, Any] = {}
        self._states: dict[tuple[str, str], Any] = {}

    def __call__(self, text: str, *, language: str, voice: str = "", speed: float = 1.0) -> Audio:
        """Speak. The engine has one speed, so another one is made by stretching time."""
        short = language.lower().partition("-")[0]
        model, state = self._loaded(short), None
        voice = voice or _POCKET_VOICES.get(short, "alba")
        try:
            state = self._states.get((short, voice))
            if state is None:
                prompt = Path(voice) if Path(voice).suffix and Path(voice).is_file() else voice
                state = self._states[short, voice] = model.get_state_for_audio_prompt(prompt)
        except (ValueError, OSError) as error:
            raise SettingsError(
                f"pocket-tts cannot use the voice {voice!r}: {_first_line(error)}",
                hint="leave `engine_voice` empty, or name a voice of pocket-tts, as alba or rafael",
            ) from error
        try:
            samples = model.generate_audio(state, text).detach().cpu().numpy().reshape(-1).astype(np.float32)
        except (ValueError, RuntimeError) as error:
            raise AudioError(f"pocket-tts failed: {_first_line(error)}", hint="change the sentence") from error
        return _stretched(Audio(samples, int(model.sample_rate)), speed)

    def _loaded(self, language: str) -> Any:
        if language not in _POCKET:
            raise SettingsError(
                f"pocket-tts does not speak {language!r}",
                hint=f"it speaks {', '.join(_POCKET)}; espeak-ng speaks others",
            )
        if language not in self._models:
            from pocket_tts import TTSModel

            try:
                self._models[language] = TTSModel.load_model(language=_POCKET[language])
            except (OSError, ValueError, RuntimeError) as error:
                raise ResourceError(
                    f"pocket-tts cannot load its weights: {_first_line(error)}",
                    hint="they are downloaded from the Hugging Face hub: connect to the internet, or use espeak-ng",
                ) from error
        return self._models[language]


class GsvSpeaker:
    """GPT-SoVITS through gsv-tts-lite. The voice is a folder: checkpoints, and a clip of 3 to 10 s with its text."""

    name = "gsv-tts-lite"

    def __init__(self) -> None:
        self._voices: dict[str, tuple[Any, dict[str, str]]] = {}

    def __call__(self, text: str, *, language: str, voice: str = "", speed: float = 1.0) -> Audio:
        """Speak with the checkpoints of the folder `voice`."""
        short = language.lower().partition("-")[0]
        if short not in _GSV_LANGUAGES:
            raise SettingsError(f"gsv-tts-lite does not speak {language!r}", hint="it speaks en, ja and zh")
        if voice not in self._voices:
            self._voices[voice] = _gsv_voice(Path(voice).expanduser())
        engine, options = self._voices[voice]
        try:
            made = engine.infer(text=text, text_language=short, speed=speed, **options)
        except (ValueError, RuntimeError, IndexError, KeyError) as error:
            raise AudioError(f"gsv-tts-lite failed: {_first_line(error)}", hint="change the sentence") from error
        return Audio(np.asarray(made.audio_data, np.float32).reshape(-1), int(made.samplerate))


def _gsv_voice(folder: Path) -> tuple[Any, dict[str, str]]:
    """The engine with the folder's checkpoints, and what `infer` is told of the reference clip."""
    from ..audio.recordings import find_recordings
    from ..audio.waveform import header_seconds
    from ..scoring.transcripts import texts_of

    how = "put into one folder: a .ckpt (GPT), a .pth (SoVITS), and a clip of 3 to 10 s with its words in a .txt"
    found = {suffix: sorted(folder.glob(f"*{suffix}")) for suffix in (".ckpt", ".pth")} if folder.is_dir() else {}
    clips = [*find_recordings(folder).recordings.values()] if folder.is_dir() else []
    if not (clips and all(found.values())):
        raise SettingsError(f"`engine_voice` {str(folder)!r} is not a voice of GPT-SoVITS", hint=how)
    clip, [text] = clips[0], texts_of(clips[:1])
    if not text or not _CLIP_SECONDS[0] <= header_seconds(clip) <= _CLIP_SECONDS[1]:
        raise SettingsError(f"{clip.name} is not a clip of 3 to 10 s with its words in {clip.stem}.txt", hint=how)
    gpt, sovits = (paths[-1] for paths in found.values())
    for path in (gpt, sovits):
        _refuse_code(path)
    from gsv_tts import TTS

    try:
        engine = TTS()
        engine.load_gpt_model(str(gpt))
        engine.load_sovits_model(str(sovits))
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ResourceError(
            f"gsv-tts-lite cannot load {folder.name}: {_first_line(error)}",
            hint="use checkpoints of GPT-SoVITS V2, V2Pro or V2ProPlus; the first run downloads its base models",
        ) from error
    options = {"spk_audio_path": str(clip), "prompt_audio_path": str(clip), "prompt_audio_text": text}
    return engine, options | {"gpt_model": str(gpt), "sovits_model": str(sovits)}


def _refuse_code(path: Path) -> None:
    """Refuse a checkpoint that would run code: the engine loads it without a check.

    GPT-SoVITS's own class of settings is allowed. It replaces the first two bytes by the version.
    """
    scan = PickleScan()
    try:
        with zipfile.ZipFile(io.BytesIO(b"PK" + path.read_bytes()[2:])) as archive:
            for name in archive.namelist():
                if name.casefold().endswith(".pkl"):
                    with archive.open(name) as stream:
                        scan.read(stream)
    except (OSError, zipfile.BadZipFile) as error:
        raise UnsafeFileError(f"{path.name} cannot be checked: {_first_line(error)}", hint=_ELSEWHERE) from error
    if scan.damage or not scan.pickles or {*scan.foreign} - _HARMLESS:
        raise UnsafeFileError(f"{path.name} {scan.verdict or 'is not a checkpoint'}; not opened", hint=_ELSEWHERE)


def _stretched(audio: Audio, speed: float) -> Audio:
    """Speech at another speed with its pitch kept (a phase vocoder; the conversion replaces its sound)."""
    if abs(speed - 1) < 0.01:
        return audio
    import torch
    from torchaudio.functional import phase_vocoder

    window, advance = torch.hann_window(_STRETCHED), torch.linspace(0, math.pi * _STRETCHED / 4, _STRETCHED // 2 + 1)
    spectra = torch.stft(torch.from_numpy(audio.samples), _STRETCHED, window=window, return_complex=True)
    moved = phase_vocoder(spectra, speed, advance[:, None])
    samples = torch.istft(moved, _STRETCHED, window=window, length=round(len(audio.samples) / speed))
    return Audio(samples.numpy(), audio.sample_rate)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


# -- choosing ------------------------------------------------------------------------------------------------------
_ENGINES: dict[str, tuple[str, Callable[[], Speaker]]] = {  # by name: the module that must be installed
    "espeak-ng": ("", _espeak),
    "pocket-tts": ("pocket_tts", PocketSpeaker),
    "gsv-tts-lite": ("gsv_tts", GsvSpeaker),
}


def refuse_engine(speech: SpeakSettings) -> None:
    """Fail before a voice is loaded if the engine is not installed, or espeak-ng lacks the language or voice.

    Raises
    ------
    ResourceError, SettingsError
    """
    if speech.engine != "auto" or not importlib.util.find_spec("pocket_tts"):  # whose weights take a while
        speaker, _ = speaker_of(speech.engine, speech.language)
        if isinstance(speaker, EspeakProgram | EspeakLibrary):
            speaker("a", language=speech.language, voice=speech.engine_voice)


def speaker_of(engine: str, language: str) -> tuple[Speaker, list[str]]:
    """The engine of this name, and warnings. ``auto``: pocket-tts where it speaks the language, else espeak-ng.

    Raises
    ------
    ResourceError
        When the engine is not installed; the hint has the command.
    """
    if engine != "auto":
        module, make = _ENGINES[engine]
        if module and not importlib.util.find_spec(module):
            raise ResourceError(f"{engine} is not installed", hint=f"pip install {engine}, or use espeak-ng")
        return make(), []
    if importlib.util.find_spec("pocket_tts") and language.lower().partition("-")[0] in _POCKET:
        pocket = PocketSpeaker()
        try:
            pocket("Hi.", language=language)
            return pocket, []
        except (ResourceError, SettingsError, AudioError) as error:
            return _espeak(), [f"{error}, so espeak-ng speaks"]
    return _espeak(), []

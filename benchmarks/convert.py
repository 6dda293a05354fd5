"""How fast a conversion is, per stage and whole; with --reference also RVC WebUI's, on the same weights, in pairs.

    python benchmarks/convert.py --reference DIR --threads 2 --seconds 10 180 --pairs 3 1 --json
    python benchmarks/convert.py --memory 3 60                 # the peak of a process that converts so many minutes

DIR is a checkout of RVC WebUI (tried with commit 4338f12). Nothing of it is copied: its `Pipeline` is imported and run.
Both sides have the same random weights of v2-40k and of HuBERT, FCPE, and one index of random vectors. What is loaded
once is loaded before; RVC WebUI reads its index in each conversion, which is part of its pipeline. The real-time factor
is seconds of work per second of sound. `ratio` is the reference's time by ours, `processor_ratio` the same of the
processors' time, which other programs on the machine disturb less.
"""

import argparse
import contextlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import types
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import numpy as np
import torch

from rvc_core.audio.waveform import Audio, read_audio
from rvc_core.conversion import convert as ours
from rvc_core.embedded import voice_folder
from rvc_core.features.content import ContentEncoder
from rvc_core.features.pitch import pitch_estimator
from rvc_core.features.retrieval import FeatureIndex
from rvc_core.nn.synthesizer import Synthesizer
from rvc_core.presets import preset
from rvc_core.settings import ConvertSettings, IndexSettings, RuntimeSettings
from rvc_core.workspace.voice_file import VoiceFile, VoiceInfo

VECTORS = 10_000
SETTINGS = ConvertSettings.of(transpose=0, f0_method="fcpe", rms_mix_rate=0.25, protect=0.33, index_rate=0.75)


def speech(seconds: float) -> Audio:
    """The package's recordings, repeated to this length, at 16 kHz."""
    files = sorted(voice_folder("source").glob("*.flac"))
    once = np.concatenate([read_audio(file, 16_000).samples for file in files])
    return Audio(np.resize(once, round(16_000 * seconds)), 16_000)


class Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def timed(self, stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same work, its time added to a stage."""

        def call(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return work(*arguments, **options)
            finally:
                self.seconds[stage] += time.perf_counter() - began

        return call


def hubert() -> torch.nn.Module:
    """HuBERT base with random weights."""
    from transformers import HubertConfig, HubertModel

    torch.manual_seed(2)
    return HubertModel(HubertConfig()).eval()


class Ours:
    """Our conversion; `clock` has its stages."""

    def __init__(self, weights: dict[str, torch.Tensor], content: torch.nn.Module, index: Path, threads: int) -> None:
        @torch.inference_mode()
        def encode(samples: np.ndarray, device: str) -> np.ndarray:
            return content(torch.from_numpy(samples)[None]).last_hidden_state[0].numpy()

        encoder = ContentEncoder("contentvec", 768, "random", "cpu", encode)
        ours.content_encoder = lambda *_, **__: encoder  # type: ignore[assignment]
        voice = VoiceFile(preset("v2-40k"), weights, VoiceInfo("random", content_name="contentvec"))
        self.converter = ours.Converter(voice, FeatureIndex.load(index), RuntimeSettings(threads=threads))
        self.clock = Clock()
        timed = self.clock.timed
        self.converter._encoder = timed("content", encoder)  # type: ignore[assignment]
        self.converter._synthesizer.infer = timed("synthesis", self.converter._synthesizer.infer)  # type: ignore
        assert self.converter.index is not None
        object.__setattr__(self.converter.index, "mix", timed("index", self.converter.index.mix))
        ours.estimated_pitch = timed("pitch", ours.estimated_pitch)  # type: ignore[assignment]

    def __call__(self, source: Audio) -> np.ndarray:
        """Convert."""
        return self.converter.convert(source, SETTINGS).audio.samples


class Reference:
    """RVC WebUI's pipeline, driven as its own `VC` drives it on a CPU."""

    def __init__(self, folder: Path, weights: dict[str, torch.Tensor], content: torch.nn.Module, index: Path) -> None:
        sys.path.insert(0, str(folder))
        with contextlib.suppress(ImportError):
            import parselmouth  # noqa: F401
        sys.modules.setdefault("parselmouth", types.ModuleType("parselmouth"))  # of a pitch method that is not used
        from infer.module import models
        from infer.vc.pipeline import Pipeline

        spec = preset("v2-40k")
        network = models.SynthesizerTrnMs768NSFsid(
            spec.spectrogram_bins,
            spec.segment_frames,
            spec.inter_channels,
            spec.hidden_channels,
            spec.filter_channels,
            spec.heads,
            spec.layers,
            spec.kernel_size,
            0,
            "1",
            list(spec.resblock_kernels),
            [list(row) for row in spec.resblock_dilations],
            list(spec.upsample_rates),
            spec.upsample_channels,
            list(spec.upsample_kernels),
            spec.speakers,
            spec.speaker_channels,
            spec.sample_rate,
            is_half=False,
        )
        del network.enc_q
        network.load_state_dict(weights, strict=False)
        # its configuration of a CPU: x_pad, x_query, x_center and x_max in seconds, float32
        config = types.SimpleNamespace(x_pad=1, x_query=6, x_center=38, x_max=41, is_half=False, device="cpu")
        self._network, self._content, self._index = network.eval(), content, index
        self._pipeline, self.clock = Pipeline(spec.sample_rate, config), Clock()

    def __call__(self, source: Audio) -> np.ndarray:
        """Convert."""
        times = [0.0, 0.0, 0.0]
        made = self._pipeline.pipeline(
            self._content,
            self._network,
            0,
            source.samples.astype(np.float64),
            times,
            0,
            "fcpe",
            str(self._index),
            SETTINGS.index_rate,
            1,
            40_000,
            0,
            SETTINGS.rms_mix_rate,
            "v2",
            SETTINGS.protect,
        )
        for stage, seconds in zip(("content and index", "pitch", "synthesis"), times, strict=True):
            self.clock.seconds[stage] += seconds
        return made


def measured(side: "Ours | Reference", source: Audio) -> dict[str, float]:
    """Real-time factors of one conversion, per stage and whole."""
    side.clock.seconds.clear()
    began, processor = time.perf_counter(), time.process_time()
    made = side(source)
    whole, processor = time.perf_counter() - began, time.process_time() - processor
    assert abs(len(made) / 40_000 - source.seconds) < 0.1 and np.abs(made).max() > 0
    stages = {stage: seconds / source.seconds for stage, seconds in side.clock.seconds.items()}
    rest = whole / source.seconds - sum(stages.values())
    return {**stages, "rest": rest, "whole": whole / source.seconds, "processor": processor / source.seconds}


def compared(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row per length: the medians of both sides over the pairs, and of the ratio within pairs."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    weights = Synthesizer(preset("v2-40k"), with_posterior=False).state_dict()
    content = hubert()
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder, "random.index")
        vectors = np.random.default_rng(0).standard_normal((VECTORS, 768)).astype(np.float32)
        FeatureIndex.build(vectors, IndexSettings()).save(index)
        sides: dict[str, Ours | Reference] = {"ours": Ours(weights, content, index, options.threads)}
        if options.reference:
            sides["reference"] = Reference(options.reference, weights, content, index)
        torch.set_num_threads(options.threads)
        pitch_estimator("fcpe")
        for side in sides.values():
            side(speech(3.0))  # loads what is loaded once
        for place, seconds in enumerate(options.seconds):
            pairs: list[dict[str, dict[str, float]]] = []
            for number in range(options.pairs[min(place, len(options.pairs) - 1)]):
                order = [*sides] if number % 2 else [*sides][::-1]
                pairs.append({name: measured(sides[name], speech(seconds)) for name in order})
            row: dict[str, Any] = {"seconds": seconds, "pairs": len(pairs), "threads": options.threads}
            for name in sides:
                row[name] = {
                    stage: round(statistics.median(pair[name][stage] for pair in pairs), 4) for stage in pairs[0][name]
                }
            if options.reference:
                for name, kind in (("ratio", "whole"), ("processor_ratio", "processor")):
                    ratios = sorted(round(pair["reference"][kind] / pair["ours"][kind], 3) for pair in pairs)
                    row |= {name: statistics.median(ratios), f"{name}s": ratios}
            yield row


# -- memory --------------------------------------------------------------------------------------------------------
def peak_of(minutes: float) -> dict[str, float]:
    """Peak memory in MB of a fresh process that converts a file of so many minutes with a `nano` voice."""
    done = subprocess.run([sys.executable, __file__, "--convert", str(minutes)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def converted(minutes: float) -> dict[str, float]:
    """Convert in this process; its peak."""
    from rvc_core.voice import Voice
    from rvc_core.workspace.voice_file import save_voice

    with tempfile.TemporaryDirectory() as folder:
        source, voice = Path(folder, "source.wav"), Path(folder, "v.pth")
        code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import convert; "
        code += f"convert.write_speech({str(source)!r}, {60 * minutes})"
        subprocess.run([sys.executable, "-c", code], check=True)  # elsewhere: it would count
        spec = preset("nano")
        weights = Synthesizer(spec, with_posterior=False).state_dict()
        save_voice(voice, VoiceFile(spec, weights, VoiceInfo("random", content_name="embedded")))
        loaded, began = Voice.load(voice, None, runtime=RuntimeSettings(threads=1)), time.perf_counter()
        before = _peak()
        loaded.convert(source, ConvertSettings.of(transpose=0, f0_method="fcpe"), output=Path(folder, "made.wav"))
        seconds = time.perf_counter() - began
    return {"minutes": minutes, "loaded_mb": before, "peak_mb": _peak(), "real_time_factor": seconds / minutes / 60}


def write_speech(path: str, seconds: float) -> None:
    """A file of 44.1 kHz in stereo, written in blocks."""
    import soundfile

    block = speech(60.0).resample(44_100).samples[:, None].repeat(2, axis=1)
    with soundfile.SoundFile(path, "w", 44_100, 2, "PCM_16") as file:
        for start in range(0, round(seconds), 60):
            file.write(block[: 44_100 * min(60, round(seconds) - start)])


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, help="folder of an RVC WebUI checkout; without it, ours alone")
    parser.add_argument("--seconds", type=float, nargs="+", default=[10.0, 180.0])
    parser.add_argument(
        "--pairs", type=int, nargs="+", default=[3], help="of each length; the last counts for the rest"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", type=float, nargs="+", metavar="MINUTES")
    parser.add_argument("--convert", type=float, metavar="MINUTES", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.convert:
        rows: Any = [converted(options.convert)]
    else:
        rows = map(peak_of, options.memory) if options.memory else compared(options)
    for row in rows:
        print(json.dumps(row) if options.json or options.convert else "\n".join(f"{k}: {v}" for k, v in row.items()))
        sys.stdout.flush()


if __name__ == "__main__":
    main()

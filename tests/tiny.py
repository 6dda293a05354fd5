"""A voice small enough to train inside a test, and an experiment folder for it made without any stage's help."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
import torch

from rvc_core import presets
from rvc_core.features.pitch import PitchTrack
from rvc_core.progress import Stop
from rvc_core.workspace import stamps
from rvc_core.workspace.dataset import Batch, ClipTensors, draw_noise
from rvc_core.workspace.layout import Layout
from rvc_core.workspace.manifest import ExperimentRecord
from synth import phrase

TINY = replace(
    presets.PRESETS["nano"],
    content_width=8,
    inter_channels=16,
    hidden_channels=16,
    filter_channels=32,
    layers=1,
    posterior_layers=2,
    upsample_channels=32,
    source_filter_channels=32,
    resblock_kernels=(3,),
    resblock_dilations=((1, 3, 5),),
    speaker_channels=8,
    speakers=4,
    segment_frames=16,
    discriminator_periods=(2, 3),
    discriminator_divisor=16,
)


def batch_of(lengths: list[int], *, seed: int) -> Batch:
    """Clips of noise of these lengths, and all draws of a step on them."""
    random = torch.Generator().manual_seed(seed)
    clips = [
        ClipTensors(
            torch.randn(frames, 8, generator=random),
            torch.full((frames,), 60),
            torch.full((frames,), 150.0),
            torch.rand(513, frames, generator=random),
            0.1 * torch.randn(frames * 160, generator=random),
            0,
        )
        for frames in lengths
    ]
    cpu = torch.device("cpu")
    return replace(Batch.of(clips, cpu), noise=draw_noise(lengths, TINY, seed=(seed,), device=cpu))


class AfterSteps(Stop):
    """Asks training to end after so many steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    @property
    def requested(self) -> bool:
        self.left -= 1
        return self.left < 0


def experiment(home: Path, name: str = "tiny", *, clips: int = 5, heldout: int = 1, seconds: float = 1.0) -> Layout:
    """An experiment ready for training: synthesised vowels, their true pitch, features that spell them.

    The preset ``nano`` must have been replaced by `TINY` (see the fixture `tiny`).
    """
    layout = Layout.of(name, home)
    ExperimentRecord(name, "synthetic", "nano").save(layout)
    for number in range(clips + heldout):
        _clip(layout if number < clips else layout.heldout, f"{number}_0", seed=number, seconds=seconds)
    names = [f"{number}_0" for number in range(clips)]
    folders = (layout.clips, layout.features(8), layout.f0_coarse, layout.f0_hz)
    lines = [
        "|".join(
            [
                *(
                    str(folder / f"{name}{end}")
                    for folder, end in zip(folders, (".wav", ".npy", ".wav.npy", ".wav.npy"), strict=True)
                ),
                "0",
            ]
        )
        for name in names
    ]
    layout.filelist.write_text("\n".join(lines), "utf-8")
    stamps.stamp(layout, "content", {"name": "embedded", "identity": "tiny"})
    return layout


def _clip(layout: Layout, name: str, *, seed: int, seconds: float) -> None:
    spoken = phrase(seed, seconds=seconds)
    track = PitchTrack(spoken.f0_hz, spoken.voiced)
    frames = (len(spoken.samples) - 400) // 320 + 1
    windows = np.lib.stride_tricks.sliding_window_view(spoken.samples, 400)[::320][:frames]
    bands = np.abs(np.fft.rfft(windows, 16))[:, 1:]
    for folder in (layout.clips, layout.f0_coarse, layout.f0_hz, layout.features(8)):
        folder.mkdir(parents=True, exist_ok=True)
    soundfile.write(layout.clips / f"{name}.wav", spoken.samples, 16000, subtype="FLOAT")
    np.save(layout.f0_coarse / f"{name}.wav.npy", track.coarse().astype(np.int32))
    np.save(layout.f0_hz / f"{name}.wav.npy", track.f0_hz)
    np.save(layout.features(8) / f"{name}.npy", np.log(bands + 1e-3).astype(np.float32))

"""Voices that we write, as RVC WebUI's and Applio's own code speak with them (tests/golden/README.md)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rvc_core.evaluation.golden import TOLERANCE, golden_weights, noise, relative_error
from rvc_core.features.pitch import PitchTrack
from rvc_core.nn.synthesizer import SynthesisNoise, Synthesizer
from rvc_core.presets import preset
from rvc_core.workspace.voice_file import VoiceFile, VoiceInfo, load_voice, save_voice, synthesizer_of

FRAMES, STRIDE = 24, 16
CELLS = [
    (f"{version}-{rate}", uses_f0)
    for version in ("v1", "v2")
    for rate in ("32k", "40k", "48k")
    for uses_f0 in (True, False)
]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(CELLS)), ids=lambda number: f"{CELLS[number][0]}-f0-{CELLS[number][1]}")
def test_a_voice_file_of_ours_sounds_in_their_programs_as_here(number: int, tmp_path: Path) -> None:
    """Weights by formula, in full size, rounded to half precision in the file; all random draws are zero."""
    name, uses_f0 = CELLS[number]
    spec, seed, frame = preset(name, uses_f0=uses_f0), 101 + number, np.arange(FRAMES)
    with torch.device("meta"):
        network = Synthesizer(spec, with_posterior=False)
    save_voice(tmp_path / "voice.pth", VoiceFile(spec, golden_weights(network), VoiceInfo(content_name="contentvec")))
    voiced = (frame // 7) % 4 != 3
    track = PitchTrack(np.where(voiced, 180 + 60 * np.sin(frame / 9 + seed), 0).astype(np.float32), voiced)
    content = noise(FRAMES * spec.content_width, seed).float().view(1, FRAMES, -1)
    pitch = (torch.from_numpy(track.coarse())[None], torch.from_numpy(track.f0_hz)[None]) if uses_f0 else (None, None)
    audio = synthesizer_of(load_voice(tmp_path / "voice.pth")).infer(
        content, *pitch, torch.tensor([seed % 109]), noise=SynthesisNoise.zeros(spec, FRAMES)
    )[0, 0]
    with np.load(Path(__file__).parents[1] / "golden" / "voices.npz") as theirs:
        for program in ("rvc", "applio"):
            expected = theirs[f"{program}_{name.replace('-', '_')}_{'f0' if uses_f0 else 'nof0'}"]
            assert relative_error(audio[::STRIDE], expected) < TOLERANCE

"""The networks against RVC's keys and numbers, against closed forms, and against other libraries."""

import contextlib
import hashlib
import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import leaky_relu

from rvc_core.errors import RVCError
from rvc_core.evaluation import golden as golden_module
from rvc_core.evaluation.golden import TOLERANCE, golden
from rvc_core.nn import generator, losses
from rvc_core.nn.attention import UNSEEN, Band, RelativeAttention
from rvc_core.nn.copies import CopiedWeights
from rvc_core.nn.discriminator import Discriminator
from rvc_core.nn.generator import frame_phase, sine
from rvc_core.nn.layers import NormedConv1d, ResBlock, _in_one_pass, channels_last
from rvc_core.nn.spectrogram import linear_spectrogram, mel_filterbank, mel_spectrogram
from rvc_core.nn.synthesizer import SynthesisNoise, Synthesizer, draw_starts, take_segments
from rvc_core.presets import VoiceSpec, preset

GOLDEN = Path(__file__).parents[1] / "golden"
# Keys, and SHA-256 of the lines "key [shape]" in the order in which RVC (commit 4338f12) registers its parameters:
# a changed name, shape or order would break a voice, a base model or a resumed optimizer.
STATE_DICTS = {
    "v1-32k f0": (619, "75c29420610fe1cc"),
    "v1-32k no f0": (606, "292b5c546b337d23"),
    "v1-40k f0": (560, "47aac4ab8bc1e474"),
    "v1-40k no f0": (549, "97508912440f8eeb"),
    "v1-48k f0": (619, "d21970115d1dcaae"),
    "v1-48k no f0": (606, "239fff43d2999bc0"),
    "v2-32k f0": (560, "a16bc92c7d9f8d25"),
    "v2-32k no f0": (549, "e786264c92441fbf"),
    "v2-40k f0": (560, "315356e14cc94346"),
    "v2-40k no f0": (549, "3e8dd30fdc66561a"),
    "v2-48k f0": (560, "4a626d8a77e7fb96"),
    "v2-48k no f0": (549, "bb2d9e02a5be8c38"),
    "discriminator v1": (129, "9527cd1ad2196b3d"),
    "discriminator v2": (165, "243b35a94cd91f36"),
}


def tiny(uses_f0: bool = True) -> VoiceSpec:
    return replace(
        preset("nano", uses_f0=uses_f0),
        inter_channels=8,
        hidden_channels=8,
        filter_channels=16,
        layers=2,
        posterior_layers=2,
        upsample_channels=32,
        speaker_channels=4,
        speakers=3,
        segment_frames=8,
        discriminator_divisor=16,
    )


def training_inputs(spec: VoiceSpec, lengths: list[int]) -> dict[str, torch.Tensor | None]:
    batch, frames = len(lengths), max(lengths)
    wave = 0.1 * torch.randn(batch, frames * spec.hop_samples)
    return {
        "content": torch.randn(batch, frames, spec.content_width),
        "lengths": torch.tensor(lengths),
        "coarse": torch.randint(1, 256, (batch, frames)) if spec.uses_f0 else None,
        "f0_hz": torch.full((batch, frames), 150.0) if spec.uses_f0 else None,
        "spectrogram": linear_spectrogram(wave, spec),
        "speaker": torch.zeros(batch, dtype=torch.long),
    }


# --- parity -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STATE_DICTS)
def test_state_dict_is_rvcs(name: str) -> None:
    count, digest = STATE_DICTS[name]
    with torch.device("meta"):
        if name.startswith("discriminator"):
            network: torch.nn.Module = Discriminator.of(preset(f"{name.split()[1]}-40k"))
        else:
            network = Synthesizer(preset(name.split()[0], uses_f0=not name.endswith("no f0")))
    lines = [f"{key} {list(entry.shape)}" for key, entry in network.state_dict().items()]
    assert len(lines) == count
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] == digest


def test_networks_reproduce_the_golden_numbers() -> None:
    report = golden(GOLDEN)
    assert report.passed and report.worst_relative_error < TOLERANCE
    assert len(report.cases) == 7
    assert all(0 <= case.worst_relative_error <= report.worst_relative_error for case in report.cases)


def test_golden_notices_a_changed_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = json.loads((GOLDEN / "index.json").read_text("utf-8"))["synth"]
    (tmp_path / "index.json").write_text(json.dumps({"synth": rows[:1], "disc": []}))
    shutil.copy(GOLDEN / "synth_v1_40k_f0.npz", tmp_path)
    monkeypatch.setattr(generator, "FINAL_SLOPE", 0.02)
    report = golden(tmp_path)
    assert not report.passed and report.worst_relative_error > 10 * TOLERANCE


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "[]",
        "{}",
        '{"synth": [], "disc": []}',
        '{"synth": [{"config": "v1_40k", "f0": 1, "T": 4, "seed": 1}], "disc": []}',
    ],
)
def test_golden_refuses_a_foreign_folder(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "index.json").write_text(content)
    with pytest.raises(RVCError, match="no golden numbers") as caught:
        golden(tmp_path)
    assert "tests/golden" in caught.value.hint


def test_relative_error_counts_a_wrong_shape() -> None:
    assert golden_module.relative_error([1.0, 2.0], [1.0]) == 1.0


# --- blocks -----------------------------------------------------------------------------------------------------------


def test_weight_norm_is_length_times_direction() -> None:
    conv = NormedConv1d(3, 4, 5)
    with torch.no_grad():
        conv.weight_g.mul_(torch.arange(1.0, 5.0).view(4, 1, 1))
    norms = conv.weight_v.flatten(1).norm(dim=1)
    assert torch.allclose(conv.kernel().flatten(1), (conv.weight_g * conv.weight_v).flatten(1) / norms[:, None])
    x = torch.randn(1, 3, 9)
    before = conv(x)
    conv.fuse()
    conv.fuse()  # fusing twice is once
    assert torch.equal(conv(x), before) and set(conv.state_dict()) == {"weight", "bias"}


def test_attention_equals_the_definition_frame_by_frame() -> None:
    frames, channels, heads = 30, 8, 2
    attend, x = RelativeAttention(channels, heads), torch.randn(1, channels, frames)
    unseen = torch.zeros(1, 1, frames)
    unseen[..., 25:] = UNSEEN
    with torch.no_grad():
        actual = attend(x, unseen, Band(frames, x.device))
        query, key, value = (
            conv(x)[0].T.unflatten(1, (heads, -1)) for conv in (attend.conv_q, attend.conv_k, attend.conv_v)
        )
        rows = torch.zeros(frames, heads, channels // heads)
        for head in range(heads):
            for i in range(frames):
                key_at, value_at = key[:, head].clone(), value[:, head].clone()
                for j in range(max(0, i - 10), min(frames, i + 11)):
                    key_at[j] += attend.emb_rel_k[0, j - i + 10]
                    value_at[j] += attend.emb_rel_v[0, j - i + 10]
                weights = (key_at[:25] @ query[i, head] / math.sqrt(channels // heads)).softmax(0)
                rows[i, head] = weights @ value_at[:25]
        expected = attend.conv_o(rows.flatten(1).T[None])
    assert torch.allclose(actual, expected, atol=1e-5)


def test_flow_is_invertible() -> None:
    voice = Synthesizer(tiny())
    for parameter in voice.flow.parameters():  # the couplings start as the identity
        torch.nn.init.normal_(parameter, std=0.3)
    z, mask, speaker = torch.randn(2, 8, 20), torch.ones(2, 1, 20), torch.randn(2, 4, 1)
    moved = voice.flow(z, mask, speaker)
    assert (moved - z).abs().max() > 0.1
    assert torch.allclose(voice.flow(moved, mask, speaker, reverse=True), z, atol=1e-4)


# --- the sine ---------------------------------------------------------------------------------------------------------


def test_sine_stays_exact_for_ten_minutes() -> None:
    frames, hop, rate = 60000, 160, 16000
    wave = sine(torch.full((1, frames), 437.3), rate)[0, 0]
    sample = np.arange(frames * hop - 8000, frames * hop, dtype=np.float64) + 1
    assert wave.shape == (frames * hop,)
    f0_hz = float(np.float32(437.3))
    assert np.abs(wave[-8000:].numpy() - 0.1 * np.sin(2 * np.pi * f0_hz * sample / rate)).max() < 1e-5


def test_sine_has_no_jump_where_the_pitch_moves_and_none_where_unvoiced() -> None:
    f0_hz = torch.linspace(100, 300, 50)[None].clone()
    f0_hz[:, 20:30] = 0
    wave = sine(f0_hz, 16000)[0, 0]
    assert wave[20 * 160 : 30 * 160].abs().max() == 0
    voiced = wave[: 20 * 160]
    assert (voiced[1:] - voiced[:-1]).abs().max() <= 0.1 * 2 * math.pi * 300 / 16000  # the steepest slope there is


def test_windows_of_the_sine_are_the_whole() -> None:
    f0_hz = 150 + 100 * torch.rand(1, 300)
    phase = frame_phase(f0_hz)
    window = sine(f0_hz[:, 170:], 40000, phase[:, 170])
    assert torch.allclose(window, sine(f0_hz, 40000)[..., 170 * 400 :], atol=1e-5)


# --- spectrograms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["v2-32k", "v2-40k", "v2-48k", "nano", "nano-24k"])
def test_mel_filters_are_librosas(name: str) -> None:
    filters = pytest.importorskip("librosa.filters")
    spec = preset(name)
    expected = filters.mel(sr=spec.sample_rate, n_fft=spec.fft_samples, n_mels=spec.mels)
    assert np.abs(mel_filterbank(spec.sample_rate, spec.fft_samples, spec.mels) - expected).max() < 1e-8


@pytest.mark.parametrize(("epsilons", "power", "floor"), [("2023", 1e-6, 1e-5), ("2026", 2e-7, 2e-6)])
def test_spectrogram_of_silence_and_of_one_frame(epsilons: str, power: float, floor: float) -> None:
    spec = replace(preset("nano"), mel_epsilons=epsilons)
    silence = torch.zeros(1, 1600)
    assert linear_spectrogram(silence, spec).shape == (1, 513, 10)
    assert torch.allclose(linear_spectrogram(silence, spec), torch.tensor(power).sqrt())
    # On silence the mel of the root's epsilon lies above its own floor wherever a filter has any width.
    quietest = mel_spectrogram(silence, spec)
    assert quietest.min() >= math.log(floor) - 1e-6

    audio = torch.randn(1, 4096)
    at = 12  # frame 12 covers samples 12 * 160 - 432 and on
    frame = audio[0, at * 160 - 432 : at * 160 - 432 + 1024].double().numpy()
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    expected = np.sqrt(np.abs(np.fft.rfft(frame * window)) ** 2 + power)
    assert np.allclose(linear_spectrogram(audio, spec)[0, :, at].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_filters_cached_in_inference_mode_serve_training() -> None:
    spec = replace(preset("nano"), mels=41)  # not cached yet
    with torch.inference_mode():
        mel_spectrogram(torch.randn(1, 1600), spec)
    audio = torch.randn(1, 1600, requires_grad=True)
    mel_spectrogram(audio, spec).sum().backward()
    assert audio.grad is not None and audio.grad.isfinite().all()


# --- losses -----------------------------------------------------------------------------------------------------------


def test_losses_on_hand_computed_numbers() -> None:
    real = [torch.tensor([[1.0, 0.5]]), torch.tensor([[2.0]])]
    fake = [torch.tensor([[0.0, 0.5]]), torch.tensor([[1.0]])]
    assert losses.distance_to_real(real).tolist() == pytest.approx([0.125, 1])
    assert losses.distance_to_fake(fake).tolist() == pytest.approx([0.125, 1])
    assert losses.distance_to_real(fake).tolist() == pytest.approx([0.625, 0])
    assert losses.distance_to_fake(fake).tolist() == pytest.approx([0.125, 1.0])
    maps = [[torch.zeros(1, 2), torch.ones(1, 4)]]
    assert losses.feature_loss(maps, [[torch.ones(1, 2), torch.full((1, 4), 4.0)]]).item() == pytest.approx(2 * (1 + 3))
    assert losses.mel_loss(torch.zeros(1, 2, 2), torch.full((1, 2, 2), -3.0)).item() == 3.0


def test_kl_loss_is_the_divergence_of_two_gaussians() -> None:
    torch.manual_seed(0)
    m_q, logs_q, m_p, logs_p = 0.3, -0.4, -0.2, 0.5
    sample = m_q + math.exp(logs_q) * torch.randn(1, 4, 100000)
    mask = torch.ones(1, 1, 100000)
    filled = [torch.full_like(sample, value) for value in (logs_q, m_p, logs_p)]
    exact = logs_p - logs_q - 0.5 + 0.5 * (math.exp(2 * logs_q) + (m_q - m_p) ** 2) * math.exp(-2 * logs_p)
    assert losses.kl_loss(sample, *filled, mask).item() == pytest.approx(4 * exact, rel=0.01)
    mask[..., 50000:] = 0
    sample[..., 50000:] = 1e6  # padding must not count
    assert losses.kl_loss(sample, *filled, mask).item() == pytest.approx(4 * exact, rel=0.02)


# --- the synthesizer --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("uses_f0", [True, False])
def test_a_training_step_reaches_every_weight(uses_f0: bool) -> None:
    spec = tiny(uses_f0)
    voice, critic = Synthesizer(spec), Discriminator.of(spec)
    output = voice(**training_inputs(spec, [20, 5]))  # the second clip is shorter than a segment
    assert output.audio.shape == (2, 1, spec.segment_frames * spec.hop_samples)
    assert output.mask.sum().item() == 25 and output.starts[1] == 0 and output.starts[0] <= 12
    logits, features = critic(output.audio)
    assert len(logits) == len(features) == 1 + len(spec.discriminator_periods)
    total = (
        losses.distance_to_real(logits).sum()
        + mel_spectrogram(output.audio, spec).mean()
        + losses.kl_loss(output.z_p, output.logs_q, output.m_p, output.logs_p, output.mask)
    )
    total.backward()
    idle = [
        name
        for name, parameter in (*voice.named_parameters(), *critic.named_parameters())
        if parameter.grad is None or not parameter.grad.isfinite().all()
    ]
    assert idle == []


def test_padding_changes_nothing_inside_a_clip() -> None:
    spec = tiny()
    voice = Synthesizer(spec)
    both = training_inputs(spec, [40, 23])
    alone = {
        name: value[1:, :23]
        if name in ("content", "coarse", "f0_hz")
        else value[1:, :, :23]
        if name == "spectrogram"
        else value[1:]
        for name, value in both.items()
    }
    with torch.no_grad():
        padded, exact = voice(**both), voice(**alone)
    for name in ("m_p", "logs_p", "logs_q"):
        assert torch.allclose(getattr(padded, name)[1:, :, :23], getattr(exact, name), atol=1e-5), name
        assert getattr(padded, name)[1, :, 23:].abs().max() == 0


def test_mixed_precision_stays_finite() -> None:
    spec = tiny()
    voice = Synthesizer(spec)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = voice(**training_inputs(spec, [20, 12]))
    losses.kl_loss(output.z_p, output.logs_q, output.m_p, output.logs_p, output.mask).backward()
    assert output.audio.isfinite().all() and voice.enc_p.proj.weight.grad.isfinite().all()


@pytest.mark.parametrize("uses_f0", [True, False])
def test_inference_is_repeatable_and_fused_inference_is_the_same(uses_f0: bool) -> None:
    spec = tiny(uses_f0)
    voice = Synthesizer(spec, with_posterior=False).eval()
    inputs = training_inputs(spec, [30])
    arguments = (inputs["content"], inputs["coarse"], inputs["f0_hz"], torch.tensor([1]))

    def speak(seed: int, noise_scale: float = 0.66666) -> torch.Tensor:
        return voice.infer(*arguments, noise_scale, generator=torch.Generator().manual_seed(seed))

    first = speak(1)
    assert first.shape == (1, 1, 30 * spec.hop_samples) and first.abs().max() <= 1
    assert torch.equal(speak(1), first) and not torch.equal(speak(2), first)
    assert not torch.allclose(speak(1, 0.0), first)
    noise = SynthesisNoise.draw(spec, 30, generator=torch.Generator().manual_seed(1))
    assert torch.equal(voice.infer(*arguments, noise=noise), first)
    assert torch.allclose(voice.fuse().infer(*arguments, noise=noise), first, atol=1e-6)


def test_source_phase_is_taken_from_the_noise() -> None:
    spec = tiny()
    voice = Synthesizer(spec).eval()
    inputs = training_inputs(spec, [10])
    arguments = (inputs["content"], inputs["coarse"], inputs["f0_hz"], torch.tensor([0]))
    quiet = SynthesisNoise.zeros(spec, 10)
    whole_cycle, half_cycle = (replace(quiet, phase=torch.tensor([phase])) for phase in (1.0, 0.5))
    assert torch.allclose(voice.infer(*arguments, noise=whole_cycle), voice.infer(*arguments, noise=quiet), atol=1e-6)
    assert not torch.allclose(voice.infer(*arguments, noise=half_cycle), voice.infer(*arguments, noise=quiet))


def test_segments_start_everywhere_they_fit_and_nowhere_else() -> None:
    lengths = torch.tensor([40, 32, 7]).repeat(2000)
    starts = draw_starts(lengths, 32, torch.Generator().manual_seed(0)).view(-1, 3)
    assert starts[:, 0].unique().tolist() == list(range(9)) and starts[:, 1:].unique().tolist() == [0]
    assert starts[:, 0].float().mean().item() == pytest.approx(4.0, abs=0.2)


def test_segments_are_cut_at_their_starts_and_end_in_zeros() -> None:
    x = torch.arange(12.0).view(2, 1, 6)
    assert take_segments(x, torch.tensor([3, 1]), 3).flatten(1).tolist() == [[3, 4, 5], [7, 8, 9]]
    assert take_segments(x, torch.tensor([0, 0]), 8).flatten(1)[0].tolist() == [0, 1, 2, 3, 4, 5, 0, 0]


def test_a_blueprint_has_all_names_and_shapes_without_the_compiler():
    code = """
import sys, torch
from rvc_core.nn.discriminator import Discriminator
from rvc_core.nn.layers import Blueprint
from rvc_core.nn.rmvpe import RMVPE
from rvc_core.nn.synthesizer import Synthesizer
from rvc_core.presets import preset
for build in (lambda: Synthesizer(preset("v2-40k")), lambda: Synthesizer(preset("nano")), lambda: RMVPE(4),
              lambda: Discriminator.of(preset("nano"))):
    with Blueprint():
        drawn = build().state_dict()
    real = build().state_dict()
    assert [(k, v.shape, v.dtype) for k, v in drawn.items()] == [(k, v.shape, v.dtype) for k, v in real.items()]
    assert all(v.is_meta for k, v in drawn.items() if k.endswith("weight_g") or k.endswith("weight_v"))
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize(("groups", "inputs", "outputs"), [(1, 6, 4), (4, 16, 64), (16, 64, 256)])
def test_a_convolution_in_groups_as_a_matrix_product_is_the_convolution(groups: int, inputs: int, outputs: int) -> None:
    """The way that a GPU takes, here on a CPU; values and all gradients."""
    torch.manual_seed(0)
    layer = NormedConv1d(inputs, outputs, 41, stride=4, padding=20, groups=groups)
    x, weights = torch.randn(2, inputs, 403, requires_grad=True), [layer.weight_v, layer.weight_g, layer.bias]
    found, expected = layer._grouped(x, *layer.weights()), layer(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    direction = torch.randn_like(expected)
    gradients = (torch.autograd.grad((each * direction).sum(), [x, *weights]) for each in (found, expected))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_copied_weights_give_autocasts_numbers_and_gradients(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    network, audio = Discriminator((2, 3), 16), 0.1 * torch.randn(2, 1, 2000)
    results = []
    for copied in (False, True):
        with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32), contextlib.ExitStack() as stack:
            if copied:
                stack.enter_context(CopiedWeights(network, dtype).lent())
            loss = sum(logits.float().square().mean() for logits in network(audio).logits)
        results.append((loss, torch.autograd.grad(loss, [*network.parameters()])))
    (loss, gradients), (other_loss, others) = results
    assert other_loss.item() == pytest.approx(loss.item(), rel=1e-3)
    for one, other in zip(gradients, others, strict=True):
        assert other.dtype is torch.float32
        torch.testing.assert_close(other, one, rtol=0.02, atol=0.02 * float(one.abs().max()))
    assert all(layer.copies is None for layer in network.modules() if isinstance(layer, NormedConv1d))


@pytest.mark.parametrize("kernel_size", [3, 7, 11])
def test_a_residual_block_in_one_pass_is_the_same(kernel_size: int) -> None:
    torch.manual_seed(kernel_size)
    block, x = ResBlock(16, kernel_size, (1, 3, 5)).eval(), channels_last(torch.randn(1, 16, 60))
    expected = x
    for dilated, plain in zip(block.convs1, block.convs2, strict=True):
        step = torch.conv1d(
            leaky_relu(expected, 0.1), dilated.kernel(), dilated.bias, 1, dilated.padding, dilated.dilation
        )
        expected = expected + torch.conv1d(leaky_relu(step, 0.1), plain.kernel(), plain.bias, 1, plain.padding)
    with torch.no_grad():
        assert _in_one_pass(x) == torch.backends.mkldnn.is_available()
        joined = block(x, leaky_relu(x, 0.1))
    assert not _in_one_pass(x), "training needs the gradients"
    apart = block(x, leaky_relu(x, 0.1))
    for made in (joined, apart):
        assert (made - expected).abs().max() < 1e-5 * expected.abs().max()

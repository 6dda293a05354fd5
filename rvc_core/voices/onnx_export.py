"""Export a voice to ONNX, for inputs of any length, and compare the file with the voice.

Inputs and their order are the same as in RVC WebUI's export, so realtime programs can use the file: ``phone
phone_lengths pitch pitchf ds rnd`` (without ``pitch`` and ``pitchf`` for voices without f0) → ``audio``.
"""

import json
import math
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import MismatchError, ResourceError
from ..nn.layers import frame_mask
from ..nn.source_filter import SourceFilter, pulse_train
from ..nn.synthesizer import NOISE_SCALE, SynthesisNoise, Synthesizer
from ..presets import VoiceSpec
from ..system.files import ensure_room, replace_atomically
from ..workspace.voice_file import VoiceFile, load_voice, synthesizer_of

_OPSET = 18  # as RVC; onnxruntime 1.14 and later can read it
_SOURCE_NOISE_SECONDS = 4  # stored and repeated; repetitions of this length are not audible
_TRACED_FRAMES, _CHECKED_FRAMES = 50, (37, 150)  # check other lengths than the traced one
_TOLERANCE = 1e-4  # relative to the loudest sample: inaudible, but well above float32 rounding


@dataclass(frozen=True)
class OnnxReport:
    """An exported voice.

    Attributes
    ----------
    parity : dict of int to float
        Length in frames → largest difference to the voice, relative to its loudest sample.
    """

    path: str
    sample_rate: int
    parity: dict[int, float] = field(default_factory=dict)


class OnnxVoice(nn.Module):
    """A voice with RVC's inputs, deterministic: equal inputs give equal audio.

    The latent noise ``rnd`` (B, C, T), standard normal, is an input. The excitation noise is stored in the file.
    """

    source_noise: Tensor

    def __init__(self, synthesizer: Synthesizer) -> None:
        super().__init__()
        self.spec, self.synthesizer = synthesizer.spec, synthesizer
        samples = _SOURCE_NOISE_SECONDS * self.spec.sample_rate
        self.register_buffer("source_noise", torch.randn(samples, generator=torch.Generator().manual_seed(0)))
        self.decoder = RealSourceFilter(synthesizer.dec) if isinstance(synthesizer.dec, SourceFilter) else None

    def noise_of(self, frames: int) -> Tensor:
        """Excitation noise (1, 1, T * hop)."""
        samples = torch.arange(frames * self.spec.hop_samples)
        return self.source_noise[samples % len(self.source_noise)][None, None]

    def forward(self, phone: Tensor, phone_lengths: Tensor, *others: Tensor) -> Tensor:
        """Synthesise; `others` are ``pitch`` (B, T), ``pitchf`` (B, T) in Hz, ``ds`` (B,) and ``rnd`` (B, C, T)."""
        pitch, pitchf, ds, rnd = others if self.spec.uses_f0 else (None, None, *others)
        voice = self.synthesizer
        mask = frame_mask(phone_lengths, phone.shape[1])
        identity = voice.emb_g(ds).unsqueeze(2)
        mean, log_deviation = voice.enc_p(phone, pitch, mask)
        z_p = (mean + log_deviation.exp() * rnd * NOISE_SCALE) * mask
        z = voice.flow(z_p, mask, identity, reverse=True)
        noise = self.noise_of(phone.shape[1]) if self.spec.uses_f0 else None
        return (self.decoder or voice.dec)(z, identity, pitchf, noise)


class RealSourceFilter(nn.Module):
    """`SourceFilter` with convolutions instead of Fourier transforms, because ONNX has no complex numbers."""

    analysis: Tensor
    synthesis: Tensor
    weight: Tensor

    def __init__(self, source: SourceFilter) -> None:
        super().__init__()
        self.source = source
        size, bins = source.fft_samples, source.bins
        angles = torch.arange(bins)[:, None] * torch.arange(size) * (2 * math.pi / size)
        window = source.window.double()
        waves = torch.cat([angles.cos(), -angles.sin()]) * window  # (2 * bins, size)
        twice = torch.full((bins, 1), 2.0)
        twice[0] = twice[-1] = 1.0  # these bins have no mirror image
        self.register_buffer("analysis", waves.float()[:, None])
        self.register_buffer("synthesis", (waves * twice.repeat(2, 1) / size).float()[:, None])
        self.register_buffer("weight", window.square().float()[None, None])

    def forward(self, latent: Tensor, speaker: Tensor, f0_hz: Tensor, noise: Tensor) -> Tensor:
        """Like `SourceFilter`, with noise (1, 1, S)."""
        source = self.source
        hop, margin = source.hop_samples, (source.fft_samples - source.hop_samples) // 2
        gain, delay, noise_gain = source.filters_at(latent, speaker, f0_hz)
        pulses = pulse_train(f0_hz, source.sample_rate).unsqueeze(1)

        def spectrum(wave: Tensor) -> tuple[Tensor, ...]:
            return functional.conv1d(functional.pad(wave, (margin, margin)), self.analysis, stride=hop).chunk(2, 1)

        real, imaginary = spectrum(pulses)
        noise_real, noise_imaginary = spectrum(noise)
        cosine, sine = gain * delay.cos(), gain * delay.sin()
        bins = torch.cat(
            [
                real * cosine - imaginary * sine + noise_real * noise_gain,
                real * sine + imaginary * cosine + noise_imaginary * noise_gain,
            ],
            1,
        )
        summed = functional.conv_transpose1d(bins, self.synthesis, stride=hop)
        weight = functional.conv_transpose1d(torch.ones_like(bins[:1, :1]), self.weight, stride=hop)
        return (summed / weight)[:, :, margin:-margin]


def export_onnx(voice_path: Path, output: Path) -> OnnxReport:
    """Write a voice as ONNX, run it in onnxruntime at two lengths, and compare it with the voice.

    Parameters
    ----------
    voice_path : Path
        A voice of rvc_core, RVC WebUI or Applio.
    output : Path
        The ``.onnx`` file; it is kept only if it matches the voice.
    """
    onnx, runtime = _packages()
    voice = load_voice(voice_path)
    network = OnnxVoice(synthesizer_of(voice)).eval()
    ensure_room(output.parent, 2 * sum(value.nbytes for value in network.state_dict().values()), is_output=True)
    example = _inputs(voice.spec, _TRACED_FRAMES)
    axes = {
        name: {tuple(value.shape).index(_TRACED_FRAMES): "frames"}
        for name, value in example.items()
        if _TRACED_FRAMES in value.shape[1:]
    }
    with replace_atomically(output) as temporary:
        _trace(network, example, axes, temporary)
        _describe(onnx, temporary, voice)
        parity = _parity(network, runtime, temporary)
    return OnnxReport(str(output), voice.spec.sample_rate, parity)


def _trace(network: OnnxVoice, example: dict[str, Tensor], axes: dict[str, dict[int, str]], path: Path) -> None:
    """Write the network with torch's tracing exporter.

    It is deprecated, but compared with its successor it needs one package less and 1 s instead of 20, and the result is
    more accurate. Its warnings are about values that are constant here.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            tuple(example.values()),
            str(path),
            input_names=list(example),
            output_names=["audio"],
            opset_version=_OPSET,
            dynamo=False,
            dynamic_axes={**axes, "audio": {2: "samples"}},
        )


def _describe(onnx: Any, path: Path, voice: VoiceFile) -> None:
    """Write the voice's metadata into the file."""
    model, info, spec = onnx.load(str(path)), voice.info, voice.spec
    onnx.helper.set_model_props(
        model,
        {
            key: str(value)
            for key, value in {
                "name": info.name,
                "sample_rate": spec.sample_rate,
                "f0": int(spec.uses_f0),
                "version": spec.version,
                "content_encoder": info.content_name or "contentvec",
                "content_width": spec.content_width,
                "speakers": spec.speakers,
                "made_by": "rvc_core",
                "rvc_core": json.dumps(asdict(info)),
            }.items()
        },
    )
    onnx.save(model, str(path))


def _packages() -> tuple[Any, Any]:
    """Import the two packages that only this module needs."""
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise ResourceError(
            f"ONNX export needs the package {error.name}, which is missing", hint="run: pip install onnx onnxruntime"
        ) from error
    return onnx, onnxruntime


def _inputs(spec: VoiceSpec, frames: int) -> dict[str, Tensor]:
    """Test inputs by name: rising pitch with a pause, random content and noise."""
    generator = torch.Generator().manual_seed(frames)
    inputs = {
        "phone": torch.randn(1, frames, spec.content_width, generator=generator),
        "phone_lengths": torch.tensor([frames]),
    }
    if spec.uses_f0:
        f0_hz = torch.linspace(90, 400, frames)
        f0_hz[frames // 3 : frames // 2] = 0
        inputs |= {"pitch": torch.where(f0_hz > 0, (f0_hz / 2).long(), 1)[None], "pitchf": f0_hz[None]}
    return inputs | {"ds": torch.tensor([0]), "rnd": torch.randn(1, spec.inter_channels, frames, generator=generator)}


def _parity(network: OnnxVoice, runtime: Any, path: Path) -> dict[int, float]:
    """Largest relative difference between the file and `Synthesizer.infer`, for each tested length."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    errors = {}
    for frames in _CHECKED_FRAMES:
        inputs = _inputs(network.spec, frames)
        [made] = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        source = network.noise_of(frames) if network.spec.uses_f0 else None
        wanted = network.synthesizer.infer(
            inputs["phone"],
            inputs.get("pitch"),
            inputs.get("pitchf"),
            inputs["ds"],
            noise=SynthesisNoise(inputs["rnd"], source),
        ).numpy()
        same_length = made.shape == wanted.shape
        errors[frames] = float(np.abs(made - wanted).max() / np.abs(wanted).max()) if same_length else math.inf
    if bad := {frames: error for frames, error in errors.items() if not error <= _TOLERANCE}:
        raise MismatchError(
            f"the ONNX file differs from the voice by {max(bad.values()):.1e}, so it was deleted",
            hint="update torch, onnx and onnxruntime, then export again",
        )
    return errors

"""Carry the weights of a `nano` to a higher sample rate: a base voice of 16 kHz starts one of 24 kHz.

The networks of a `nano` run on frames. Only two layers know frequencies: the one that reads the spectrogram and the one
that sets the gain of each frequency. What they know below 8 kHz stays; above, the decoder starts with the gains of
speech near 7 kHz, and training on recordings of the higher rate does the rest.
"""

import math

import torch
from torch import Tensor

from ..presets import PRESETS, VoiceSpec

_COPIED_HZ = (6500.0, 7500.0)  # below the edge of the band, whose gains follow resamplers and codecs


def at_rate(weights: dict[str, Tensor], spec: VoiceSpec) -> dict[str, Tensor]:
    """Weights of a `nano` at 16 kHz as a start for `spec`, a `nano` of another rate; all others stay as they are.

    Examples
    --------
    >>> from rvc_core.nn.synthesizer import Synthesizer
    >>> from rvc_core.presets import preset
    >>> made = at_rate(Synthesizer(preset("nano")).state_dict(), preset("nano-24k"))
    >>> _ = Synthesizer(preset("nano-24k")).load_state_dict(made)
    """
    known, ratio = PRESETS["nano"], spec.sample_rate / PRESETS["nano"].sample_rate
    if ratio == 1 or len(weights.get("dec.filters.bias", ())) != 3 * (2 * known.hop_samples + 1):
        return weights
    # The same power is spread over more harmonics and a wider noise, so each frequency needs more gain.
    louder = torch.tensor([0.5 * math.log(ratio), 0.0, 0.5 * math.log(ratio)])[:, None]
    bias = _extended(weights["dec.filters.bias"].float(), spec) + louder
    return weights | {
        "dec.filters.weight": _extended(weights["dec.filters.weight"].float(), spec).flatten(0, 1),
        "dec.filters.bias": bias.flatten(),
        "enc_q.pre.weight": _resampled(weights["enc_q.pre.weight"].float(), known, spec),
    }


def _extended(rows: Tensor, spec: VoiceSpec) -> Tensor:
    """Rows of the decoder's last layer, (3 * bins, ...), 25 Hz apart → (3, more bins, ...)."""
    rows = rows.unflatten(0, (3, -1))
    low, high = (round(hz * rows.shape[1] * 2 / PRESETS["nano"].sample_rate) for hz in _COPIED_HZ)
    above = rows[:, low:high].mean(1, keepdim=True)
    missing = 2 * spec.hop_samples + 1 - high
    return torch.cat([rows[:, :high], above.expand(-1, missing, *rows.shape[2:])], dim=1)


def _resampled(kernel: Tensor, known: VoiceSpec, spec: VoiceSpec) -> Tensor:
    """The layer that reads spectra, (hidden, bins, 1), for bins at other frequencies; deaf above the known band."""
    known_hz, wanted_hz = (torch.linspace(0, rates.sample_rate / 2, rates.spectrogram_bins) for rates in (known, spec))
    position = wanted_hz / known_hz[1]
    below = position.long().clamp(max=known.spectrogram_bins - 2)
    share = (position - below)[:, None]
    mixed = kernel[:, below] * (1 - share) + kernel[:, below + 1] * share
    width = known.fft_samples * spec.sample_rate / (spec.fft_samples * known.sample_rate)  # of a bin, in known bins
    return mixed * width * (wanted_hz <= known_hz[-1])[:, None]

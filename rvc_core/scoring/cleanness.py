"""Naturalness of a conversion: DNSMOS predicts listeners' ratings."""

import importlib.resources
from dataclasses import dataclass

import numpy as np

from ..audio.waveform import Audio
from ..errors import AudioError, ResourceError

_DNSMOS_RATE_HZ, _DNSMOS_SECONDS = 16_000, 9.01  # the network's window; one starts every second
_DNSMOS_SCALES = {
    "signal": (-0.08397278, 1.22083953, 0.0052439),  # polynomials from raw output to mean opinion score, as published
    "background": (-0.13166888, 1.60915514, -0.39604546),
    "overall": (-0.06766283, 1.11546468, 0.04602535),
}


@dataclass(frozen=True)
class Naturalness:
    """Mean opinion scores that DNSMOS predicts, 1 (bad) to 5 (excellent), by ITU-T P.835.

    Attributes
    ----------
    signal, background, overall : float
        Scores of the speech, of the background, and of the whole.
    """

    signal: float
    background: float
    overall: float


class NaturalnessScorer:
    """Predicts how listeners would rate a recording: DNSMOS P.835 (Reddy et al., 2022), from the package speechmos.

    It detects noise, buzz and whisper, but hardly a vocoder (3.28 becomes 3.20). Good recordings score 2.7 to 3.4, so
    compare a conversion with its source and its target.

    Raises
    ------
    ResourceError
        When speechmos or onnxruntime is not installed.

    Examples
    --------
    >>> NaturalnessScorer()(recording)                                     # doctest: +SKIP
    Naturalness(signal=3.33, background=4.07, overall=3.09)
    """

    def __init__(self) -> None:
        try:
            import onnxruntime

            model = importlib.resources.files("speechmos").joinpath("dnsmos_models", "sig_bak_ovr.onnx").read_bytes()
        except ImportError as error:
            raise ResourceError(
                f"DNSMOS needs speechmos and onnxruntime ({error})",
                hint="pip install onnxruntime && pip install --no-deps speechmos",
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # more threads would busy-wait on the other cores
        self._network = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def __call__(self, audio: Audio) -> Naturalness:
        """Rate a recording; a recording under 9 s is repeated to fill the window.

        Raises
        ------
        AudioError
            When it has no samples.
        """
        samples = np.clip(audio.resample(_DNSMOS_RATE_HZ).samples, -1, 1)
        if not len(samples):
            raise AudioError("the recording has no samples to rate", hint="export the recording again")
        length = int(_DNSMOS_SECONDS * _DNSMOS_RATE_HZ)
        while len(samples) < length:
            samples = np.concatenate([samples, samples])
        windows = np.lib.stride_tricks.sliding_window_view(samples, length)[::_DNSMOS_RATE_HZ]
        raw = np.stack([self._network.run(None, {"input_1": window[None]})[0][0] for window in windows])
        return Naturalness(
            **{
                name: float(np.polyval(scale, raw[:, column]).mean())
                for column, (name, scale) in enumerate(_DNSMOS_SCALES.items())
            }
        )

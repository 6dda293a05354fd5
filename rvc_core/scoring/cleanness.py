"""Whether a conversion sounds clean: what listeners would say, by DNSMOS."""

import importlib.resources
from dataclasses import dataclass

import numpy as np

from ..audio.waveform import Audio
from ..errors import AudioError, ResourceError

_DNSMOS_RATE_HZ, _DNSMOS_SECONDS = 16_000, 9.01  # what one look of the network takes, once a second
_DNSMOS_SCALES = {
    "signal": (-0.08397278, 1.22083953, 0.0052439),  # its raw answers to mean opinions, as published
    "background": (-0.13166888, 1.60915514, -0.39604546),
    "overall": (-0.06766283, 1.11546468, 0.04602535),
}


@dataclass(frozen=True)
class Naturalness:
    """Mean opinions that DNSMOS expects of listeners, 1 (bad) to 5 (excellent), by ITU-T P.835.

    Attributes
    ----------
    signal, background, overall : float
        Of the speech itself, of what else is heard, and of all together.
    """

    signal: float
    background: float
    overall: float


class NaturalnessScorer:
    """Guesses how listeners would rate a recording: DNSMOS P.835 (Reddy et al., 2022), from the wheel of speechmos.

    It hardly notices a vocoder (3.28 becomes 3.20) but catches noise, buzz and whisper. Good recordings differ, 2.7 to
    3.4: compare with the source's and the target's own.

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
        options.intra_op_num_threads = 1  # its waiting threads would hold the other cores
        self._network = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def __call__(self, audio: Audio) -> Naturalness:
        """Rate a recording; one shorter than nine seconds is repeated.

        Raises
        ------
        AudioError
            When there is nothing in it.
        """
        samples = np.clip(audio.resample(_DNSMOS_RATE_HZ).samples, -1, 1)
        if not len(samples):
            raise AudioError("no sound to rate", hint="export the recording again")
        length = int(_DNSMOS_SECONDS * _DNSMOS_RATE_HZ)
        while len(samples) < length:
            samples = np.concatenate([samples, samples])
        looks = np.lib.stride_tricks.sliding_window_view(samples, length)[::_DNSMOS_RATE_HZ]
        raw = np.stack([self._network.run(None, {"input_1": look[None]})[0][0] for look in looks])
        return Naturalness(
            **{
                name: float(np.polyval(scale, raw[:, column]).mean())
                for column, (name, scale) in enumerate(_DNSMOS_SCALES.items())
            }
        )

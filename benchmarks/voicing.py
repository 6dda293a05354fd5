"""Which frames of people's speech are voiced: our estimators, and our conversions, against a vote of three others.

The vote is the majority of pYIN (librosa), Praat's autocorrelation (threshold 0.45) and DIO with StoneMask. It needs
``pip install librosa praat-parselmouth pyworld-prebuilt``::

    python benchmarks/voicing.py RECORDINGS                     # thresholds of periodicity, per estimator
    python benchmarks/voicing.py RECORDINGS --outputs CONVERTED # a conversion's voicing, beside a WORLD copy's
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from rvc_core.audio.recordings import recordings_in
from rvc_core.audio.waveform import Audio, read_audio
from rvc_core.features import pitch
from rvc_core.features.pitch import HOP_SAMPLES, SAMPLE_RATE, PitchTrack, pitch_estimator
from rvc_core.scoring.melody import vuv_agreement, world_copy

LOWEST_HZ, HIGHEST_HZ = pitch.F0_MIN_HZ, pitch.F0_MAX_HZ
THRESHOLDS = (0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
METHODS = ("fcpe", "harvest", "dio")


def vote(samples_16k: np.ndarray) -> PitchTrack:
    """Voicing by majority; the pitch is FCPE's, which slips no octaves, 0 where it finds none."""
    import librosa
    import parselmouth

    frames = len(samples_16k) // HOP_SAMPLES
    options = {"fmin": LOWEST_HZ, "fmax": HIGHEST_HZ, "sr": SAMPLE_RATE}
    pyin = librosa.pyin(samples_16k, frame_length=1024, hop_length=HOP_SAMPLES, **options)[0][:frames]
    margin = 0.1
    sound = parselmouth.Sound(np.pad(samples_16k.astype(float), round(margin * SAMPLE_RATE)), SAMPLE_RATE)
    praat = sound.to_pitch_ac(time_step=0.01, voicing_threshold=0.45, pitch_floor=LOWEST_HZ, pitch_ceiling=HIGHEST_HZ)
    praat_hz = [praat.get_value_at_time(margin + frame / 100) for frame in range(frames)]
    dio_hz = pitch_estimator("dio", voicing="estimator")(samples_16k).f0_hz
    voiced = (np.nan_to_num(np.array([pyin, praat_hz, dio_hz], float)) > 0).sum(0) >= 2
    return PitchTrack(pitch_estimator("fcpe", voicing="estimator")(samples_16k).f0_hz, voiced)


def thresholds(recordings: list[np.ndarray]) -> list[dict[str, float | str]]:
    """Agreement, missed and wrongly claimed frames of each estimator at each threshold, means over recordings."""
    votes, rows = [vote(samples) for samples in recordings], []
    for method in METHODS:
        alone = pitch_estimator(method, voicing="estimator")
        tracks = [alone(samples) for samples in recordings]
        repeats = [pitch.periodicity(*pair) for pair in zip(recordings, [t.f0_hz for t in tracks], strict=True)]
        for threshold in ("alone", *THRESHOLDS):
            figures = []
            for track, repeat, voted in zip(tracks, repeats, votes, strict=True):
                ours = track.voiced if threshold == "alone" else track.voiced & (repeat > threshold)
                missed = (voted.voiced & ~ours).sum() / max(1, voted.voiced.sum())
                claimed = (ours & ~voted.voiced).sum() / max(1, (~voted.voiced).sum())
                figures.append(((ours == voted.voiced).mean(), missed, claimed))
            agree, missed, claimed = np.mean(figures, axis=0).round(3).tolist()
            rows.append(
                {"method": method, "threshold": threshold, "agree": agree, "missed": missed, "claimed": claimed}
            )
    return rows


def kept(source: np.ndarray, output: Callable[[], np.ndarray]) -> dict[str, float]:
    """Voicing agreement, and the share of frames voiced in both that lie within 50 cents after the transposition."""
    before, after = vote(source), vote(output()).fitted(len(source) // HOP_SAMPLES)
    both = before.voiced & after.voiced & (before.f0_hz > 0) & (after.f0_hz > 0)
    cents = 1200 * np.log2(after.f0_hz[both] / before.f0_hz[both])
    within = np.abs(cents - np.median(cents)) <= 50
    return {"voicing": vuv_agreement(before, after), "within_50_cents": float(within.mean())}


def at_16k(path: Path) -> np.ndarray:
    """At most 20 s of a recording."""
    return read_audio(path).resample(SAMPLE_RATE).samples[: 20 * SAMPLE_RATE]


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", nargs="+", type=Path)
    parser.add_argument("--outputs", type=Path, help="folder of converted files, named after the recordings")
    arguments = parser.parse_args()
    files = recordings_in(arguments.recordings)
    if not arguments.outputs:
        print(json.dumps({"recordings": len(files), "rows": thresholds([at_16k(path) for path in files])}))
        return
    rows = {}
    for path in files:
        made = [other for other in recordings_in([arguments.outputs]) if path.stem in other.stem]
        if not made:
            raise SystemExit(f"no converted file in {arguments.outputs} is named after {path.name}")
        source = at_16k(path)
        copy = kept(source, lambda source=source: world_copy(Audio(source, SAMPLE_RATE)).samples)
        rows[path.name] = kept(source, lambda file=made[0]: at_16k(file)) | {f"{key}_copy": copy[key] for key in copy}
    names = next(iter(rows.values()))
    print(
        json.dumps({"mean": {name: float(np.nanmean([row[name] for row in rows.values()])) for name in names}} | rows)
    )


if __name__ == "__main__":
    main()

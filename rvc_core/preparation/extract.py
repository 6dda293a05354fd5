"""Stage: compute pitch and content features of the clips, and write RVC's file list.

Pitch and content have separate stamps, so another f0 method recomputes only the pitch. The stage records its settings
before it writes the first file. So an interrupted run resumes, and changed settings start again.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..audio.waveform import Audio, read_audio
from ..errors import AudioError, DatasetError
from ..features.content import content_encoder, content_identity, content_name
from ..features.pitch import SAMPLE_RATE, PitchTrack, pitch_estimator, pitch_method
from ..presets import VoiceSpec
from ..progress import Progress, Report, Silent, Stop, counted
from ..settings import ExtractSettings, RuntimeSettings
from ..system.devices import choose_device
from ..system.files import ensure_room, replace_atomically, write_text
from ..system.threads import set_threads
from ..system.untrusted import load_array
from ..workspace.filelist import filelist_text, listed_text, mute_wave
from ..workspace.layout import Layout
from ..workspace.manifest import ExperimentRecord, Manifest, covered_seconds
from ..workspace.stage_locks import at_stage, refuse_disturbance
from ..workspace.stamps import clear, content_of, is_current, stamp, stamp_of
from .manner import LEAST_MINUTES, Group, dominating, grouped, manner_of, summed_up
from .prepare import normal_gain

_MUTE_SECONDS, _MUTE_F0_FRAMES = 3, 301
_MOST_CLIP_BYTES = 4 * 50 * (768 + 8) * 4  # seconds, frames, values a frame, bytes
Compute = Callable[[np.ndarray], list[np.ndarray]]  # samples at 16 kHz → one array per file


@dataclass(frozen=True)
class ExtractReport(Report):
    """Result for all clips, including held-out clips.

    Attributes
    ----------
    done, skipped : int
        Clips computed now; clips already up to date.
    failed : dict
        Reason by clip. Failed clips are not trained on; the next run tries them again.
    stopped : bool
        Stopped early on request; the next run resumes here.
    groups : list of Group
        Manners of speaking that were found now; the manifest names the one of each clip.
    """

    done: int = 0
    skipped: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    stopped: bool = False
    groups: list[Group] = field(default_factory=list)


@dataclass(frozen=True)
class _Clip:
    place: Layout  # the experiment, its held-out part, or its silent clip
    id: str
    speaker: int = 0


@dataclass(frozen=True)
class _Feature:
    """One kind of feature: its inputs, its files, and the loader of its estimator or encoder."""

    stage: str
    content: dict[str, Any]
    folders: Callable[[Layout], list[Path]]
    suffix: str
    load: Callable[[str], Compute]

    @property
    def started(self) -> str:
        """Stamp of an incomplete computation."""
        return f"{self.stage}_started"

    def files(self, clip: _Clip) -> list[Path]:
        return [folder / (clip.id + self.suffix) for folder in self.folders(clip.place)]


@at_stage("extract")
def extract(
    layout: Layout,
    settings: ExtractSettings = ExtractSettings(),
    *,
    progress: Progress = Silent(),
    stop: Stop | None = None,
    runtime: RuntimeSettings = RuntimeSettings(),
) -> ExtractReport:
    """Compute pitch and content of all clips that are not up to date, and write ``filelist.txt``.

    Writes ``2a_f0``, ``2b-f0nsf`` and ``3_feature…`` for training and held-out clips, and the silent clip ``mute``.
    Clips without a voiced frame are kept.

    Raises
    ------
    StageOrderError
        When the recordings are not prepared yet.
    WeightsError, ResourceError
        When the encoder's weights or the pitch estimator's package are missing.
    DatasetError
        When no clip can be used.
    """
    spec = ExperimentRecord.load(layout).spec
    clips = [
        _Clip(layout.heldout if clip.heldout else layout, clip.id, clip.speaker) for clip in Manifest.load(layout).clips
    ]
    features = _features(layout, settings, spec)
    restarted = [
        feature
        for feature in features
        if not any(is_current(layout, stage, feature.content) for stage in (feature.stage, feature.started))
    ]
    wanted = _wanted(layout, features, restarted, clips)
    compute = (
        _ready(layout, features, wanted, runtime) if wanted else {}
    )  # loads first: if that fails, nothing is removed
    if wanted:
        refuse_disturbance(layout, "extract")
    for feature in restarted:
        _begin(layout, feature)
    _write_mute(layout.mute, spec)
    ours = [clip for clip in clips if clip in wanted]
    report = ExtractReport(len(ours), len(clips) - len(ours))
    if wanted:
        report = _compute_all(layout, wanted, compute, report, progress=progress, stop=stop)
    if report.stopped:
        return report
    report = _finish(layout, spec, features, clips, report)
    return replace(report, groups=_grouped(layout, progress)) if ours and spec.uses_f0 else report


def _grouped(layout: Layout, progress: Progress) -> list[Group]:
    """Write the manner of speaking of each training clip into the manifest, if there is an hour of them."""
    manifest = Manifest.load(layout)
    clips = [clip for clip in manifest.training if (layout.f0_hz / f"{clip.id}.wav.npy").exists()]
    if covered_seconds(clips) < 60 * LEAST_MINUTES:
        return []
    manners = []
    progress.start("grouping", len(clips))
    for clip in clips:
        loud = read_audio(layout.clips / f"{clip.id}.wav").samples
        samples = read_audio(layout.clips_16k / f"{clip.id}.wav", SAMPLE_RATE).samples
        f0_hz = load_array(layout.f0_hz / f"{clip.id}.wav.npy")
        manners.append(manner_of(samples / normal_gain(float(np.abs(loud).max())), PitchTrack(f0_hz, f0_hz > 0)))
        progress.advance(clip.id)
    names = dict(zip((clip.id for clip in clips), grouped(np.array(manners)), strict=True))
    named = [clip if clip.heldout else replace(clip, group=names.get(clip.id, "")) for clip in manifest.clips]
    replace(manifest, clips=named).save(layout)
    groups = summed_up(list(names.values()), [clip.seconds for clip in clips])
    for one in groups:
        progress.say(f"group {one.name}: {one.minutes:.1f} minutes; to train on it alone: --groups {one.name}")
    if most := dominating(groups):
        progress.say(f"nearly all clips are of one group ({most}): the voice will know little else")
    return groups


def _features(layout: Layout, settings: ExtractSettings, spec: VoiceSpec) -> list[_Feature]:
    """The features that this voice needs, and their inputs."""
    prepared, width = stamp_of(layout, "prepare"), spec.content_width
    name = content_name(settings.content, spec)
    method = _pitch_method(layout, settings.f0_method)

    def load_pitch(device: str) -> Compute:
        estimate = pitch_estimator(method, device, spec.voicing)

        def compute(samples: np.ndarray) -> list[np.ndarray]:
            track = estimate(samples)
            return [track.coarse().astype(np.int32), track.f0_hz]

        return compute

    def load_content(device: str) -> Compute:
        encoder = content_encoder(name, width, device)
        return lambda samples: [encoder(samples)]

    content = {"name": name, "width": width, "identity": content_identity(name, width), "prepare": prepared}
    features = [_Feature("content", content, lambda place: [place.features(width)], ".npy", load_content)]
    if spec.uses_f0:
        features.append(
            _Feature(
                "f0",
                {"method": method, "voicing": spec.voicing, "prepare": prepared},
                lambda place: [place.f0_coarse, place.f0_hz],
                ".wav.npy",
                load_pitch,
            )
        )
    return features


def _pitch_method(layout: Layout, choice: str) -> str:
    """Resolve ``auto`` once per experiment, so that later downloads do not change its pitch."""
    recorded = content_of(layout, "f0_started") or content_of(layout, "f0")
    return recorded["method"] if choice == "auto" and "method" in recorded else pitch_method(choice)


def _wanted(
    layout: Layout, features: list[_Feature], restarted: list[_Feature], clips: list[_Clip]
) -> dict[_Clip, list[_Feature]]:
    """Missing features by clip: all of a feature that starts again, else what an interrupted run left out."""
    wanted: dict[_Clip, list[_Feature]] = {}
    for feature in features:
        mute = [_Clip(layout.mute, "mute")] if feature.stage == "content" else []
        for clip in [*clips, *mute]:
            if feature in restarted or not all(path.exists() for path in feature.files(clip)):
                wanted.setdefault(clip, []).append(feature)
    return wanted


def _ready(
    layout: Layout, features: list[_Feature], wanted: dict[_Clip, list[_Feature]], runtime: RuntimeSettings
) -> dict[str, Compute]:
    """Check the disk space, then load the estimator and encoder of each stage."""
    ensure_room(layout.root, _MOST_CLIP_BYTES * len(wanted))
    set_threads(runtime.threads)
    device = choose_device(runtime.device).name
    stages = {feature.stage for missing in wanted.values() for feature in missing}
    return {feature.stage: feature.load(device) for feature in features if feature.stage in stages}


def _begin(layout: Layout, feature: _Feature) -> None:
    """Remove the results of other settings, and record the new ones."""
    clear(layout, feature.stage)
    for place in (layout, layout.heldout, layout.mute):
        for folder in feature.folders(place):
            shutil.rmtree(folder, ignore_errors=True)
    stamp(layout, feature.started, feature.content)


def _compute_all(
    layout: Layout,
    wanted: dict[_Clip, list[_Feature]],
    compute: dict[str, Compute],
    report: ExtractReport,
    *,
    progress: Progress,
    stop: Stop | None,
) -> ExtractReport:
    """Compute missing features. A clip that fails is reported and does not stop the others."""
    failed: dict[str, str] = {}
    unvoiced: list[str] = []
    progress.start("extracting", len(wanted))
    for number, (clip, missing) in enumerate(wanted.items()):
        if stop is not None and stop.requested:
            return replace(report, done=max(0, number - len(failed)), failed=failed, stopped=True)
        try:
            if not _compute(clip, missing, compute):
                unvoiced.append(clip.id)
        except (AudioError, DatasetError) as error:
            if clip.place == layout.mute:
                raise
            failed[clip.id] = str(error)
        progress.advance(clip.id)
    return replace(report, done=report.done - len(failed), failed=failed, warnings=_warnings(failed, unvoiced))


def _compute(clip: _Clip, missing: list[_Feature], compute: dict[str, Compute]) -> bool:
    """Compute the missing features of a clip; False if that includes the pitch and no frame is voiced."""
    samples = read_audio(clip.place.clips_16k / f"{clip.id}.wav", SAMPLE_RATE).samples
    voiced = True
    for feature in missing:
        arrays = compute[feature.stage](samples)
        for path, array in zip(feature.files(clip), arrays, strict=True):
            _save(path, array)
        voiced &= feature.stage != "f0" or bool(arrays[1].any())
    return voiced


def _write_mute(mute: Layout, spec: VoiceSpec) -> None:
    """Write RVC's silent clip, except its content, which is computed as for other clips."""
    arrays = {mute.f0_coarse: np.ones(_MUTE_F0_FRAMES, np.int32), mute.f0_hz: np.zeros(_MUTE_F0_FRAMES, np.float32)}
    for folder, array in arrays.items() if spec.uses_f0 else ():
        if not (folder / "mute.wav.npy").exists():
            _save(folder / "mute.wav.npy", array)
    waves = {mute_wave(mute, spec): spec.sample_rate, mute.clips_16k / "mute.wav": SAMPLE_RATE}
    for path, rate_hz in waves.items():
        if not path.exists():
            Audio(np.zeros(_MUTE_SECONDS * rate_hz, np.float32), rate_hz).save(path)


def _finish(
    layout: Layout, spec: VoiceSpec, features: list[_Feature], clips: list[_Clip], report: ExtractReport
) -> ExtractReport:
    """Stamp complete features and list the usable training clips."""
    usable = [
        clip
        for clip in clips
        if clip.place == layout and all(path.exists() for feature in features for path in feature.files(clip))
    ]
    if not usable:
        reason = next(iter(report.failed.values()), "all are held out")
        raise DatasetError(f"none of {len(clips)} clips can be trained on: {reason}", hint="replace or add recordings")
    for feature in features:
        if not is_current(layout, feature.stage, feature.content):
            stamp(layout, feature.stage, feature.content)
        clear(layout, feature.started)
    text = filelist_text(layout, spec, {clip.id: clip.speaker for clip in usable})
    if not layout.filelist.exists() or listed_text(layout.filelist) != text:
        write_text(layout.filelist, text)
    return report


def _save(path: Path, array: np.ndarray) -> None:
    with replace_atomically(path) as temporary:
        np.save(temporary, array)


def _warnings(failed: dict[str, str], unvoiced: list[str]) -> list[str]:
    lines = [f"clip {clip} is not used: {reason}" for clip, reason in failed.items()]
    if unvoiced:
        names = ", ".join(unvoiced[:5]) + (", …" if len(unvoiced) > 5 else "")
        lines.append(f"no voiced frame (whispered or without a voice) in {counted(len(unvoiced), 'clip')}: {names}")
    return lines

"""A plan before training: preset, epochs, batch size, sessions and what to fix first, each with its reason and source.

`plan` is pure: what the recordings are, what the machine is and the minutes go in, lines come out. A line's source is
the page of docs/ with the measurement or the guide's advice. Nobody knows the best epoch before training: the epochs
are a budget, and the verdict chooses.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DatasetError, SettingsError, StageOrderError
from ..preparation.manner import LEAST_MINUTES
from ..preparation.material import Material, material_of, of_clips
from ..preparation.survey import DatasetReport, Grade, inspect
from ..presets import PRESETS
from ..progress import Progress, Report, Silent, counted
from ..settings import PrepareSettings, RuntimeSettings, S
from ..workspace.layout import Layout
from ..workspace.manifest import ExperimentRecord, Manifest
from .capacity import OTHER_CARDS, OVERHEAD, OWN_GPU, OWN_RUN, USUAL_CLIPS, Begun, Machine, guide_batch, step_of

_GUIDES, _RUNS = "docs/guides.md", "docs/overtraining.md#real-trainings"
_NANO_STEPS, _V_STEPS = 800, 2400  # for a minute: fitted on real trainings of nano; 6,000 for ten minutes
_GROWTH = 0.4  # of the steps with the minutes: the exponent of the same three trainings
_SHARES: dict[Grade | None, float] = {"good": 1.0, "usable": 0.75, None: 0.75, "poor": 0.5}
_MUCH_MINUTES, _MUCH_SHARE = 60.0, 1.5  # so much clean sound may be passed over more often
_MOST_PASSES, _MOST_CLIPS, _MANY_CLIPS = 500, 16, 1000
_LEAST_GB = 3.0  # one clip of v2-40k took 2.0 GB on an H200
_NEEDS_HZ = {"v2-48k": 22_500, "v2-40k": 18_000, "v2-32k": 0, "nano-24k": 10_000, "nano": 0}  # recordings' bandwidth
_FEW_MINUTES, _SATURATED_MINUTES, _TOO_MANY_MINUTES = 10.0, 30.0, 600.0
_SECOND_GPU_MINUTES = 30.0  # a training that is over sooner is not worth the exchange of gradients
_SAVE_SECONDS, _SAVES, _LEAST_SAVES = 60.0, 20, 5
_MOST_FIXES, _AMPLE = 6, 3.0


@dataclass(frozen=True)
class Line:
    """One decision: a setting or what else it is about, its value, why, and the page of docs/ that says so."""

    setting: str
    value: Any
    reason: str
    source: str


@dataclass(frozen=True)
class Plan(Report):
    """What to train with, and for how long."""

    lines: list[Line]

    def __str__(self) -> str:
        return "\n".join(f"{one.setting}: {one.value}\n    {one.reason} [{one.source}]" for one in self.lines)

    def values(self, settings: type[S]) -> dict[str, Any]:
        """What the plan says about the fields of a settings class."""
        return {one.setting: one.value for one in self.lines if one.setting in settings.model_fields}


def plan(
    material: Material,
    machine: Machine,
    minutes: float | None = None,
    begun: Begun | None = None,
    preset: str = "",
) -> Plan:
    """Decide how to train these recordings on this machine in so many minutes.

    Parameters
    ----------
    minutes : float, optional
        What there is. None: until the session ends, or as long as it takes.
    begun : Begun, optional
        What exists already: its preset and batch size stay.
    preset : str
        A preset that you chose yourself.

    Raises
    ------
    SettingsError
        When `minutes` is not above 0.
    DatasetError
        When the recordings hold no sound.

    Examples
    --------
    >>> from rvc_core.settings import TrainSettings
    >>> made = plan(Material(10, "good", 11_000, clips=200, has_heldout=True), Machine(), minutes=60)
    >>> made.lines[0].value, made.values(TrainSettings)["epochs"]
    ('nano-24k', 80)
    """
    refuse_no_time(minutes)
    if not material.clips or material.minutes <= 0:
        raise DatasetError("there is no sound to learn from", hint="add recordings of one person: 10 minutes or more")
    return Plan([*_decided(material, machine, minutes, begun, preset), *_material_lines(material), _verdict(material)])


def _decided(
    material: Material, machine: Machine, minutes: float | None, begun: Begun | None, chosen: str
) -> Iterator[Line]:
    """The lines on settings and time."""
    preset = _preset(material, machine, begun, chosen)
    name: str = preset.value
    epochs = _epochs(material, name, begun)
    left = max(0, epochs.value - (begun.epochs if begun else 0))
    batch = _batch(material, machine, begun, name)
    gpus = _gpus(material, machine, name, batch.value, left)
    if gpus and gpus.value == 1:
        machine = machine.with_one_gpu()
        batch = _batch(material, machine, begun, name)
    clips = batch.value if isinstance(batch.value, int) else USUAL_CLIPS
    epoch_steps = math.ceil(material.clips / (clips * max(1, len(machine.gpus))))
    seconds, source = step_of(machine, name, clips, begun)
    yield from (preset, epochs, batch)
    if gpus:
        yield gpus
    if minutes:
        yield Line("max_minutes", minutes, "You have this time.", f"{_GUIDES}#epochs-and-steps")
    yield from _time(left * epoch_steps, clips * max(1, len(machine.gpus)), (seconds, source), machine, minutes)
    yield _saves(epochs.value, epoch_steps * seconds)
    yield from _constants(machine)


def refuse_no_time(minutes: float | None) -> None:
    """Raise a SettingsError unless there is time to train."""
    if minutes is not None and not 0 < minutes < math.inf:
        raise SettingsError(f"minutes must be more than 0, not {minutes:g}", hint="give the minutes that you have")


def budget_steps(minutes: float, grade: Grade | None, name: str) -> int:
    """Steps of 8 clips to train a preset for, with so many minutes of recordings.

    Examples
    --------
    >>> budget_steps(10, "good", "v2-40k"), budget_steps(10, "poor", "v2-40k"), budget_steps(1, "good", "nano")
    (6028, 3014, 800)
    """
    usual = (_NANO_STEPS if name.startswith("nano") else _V_STEPS) * minutes**_GROWTH
    return max(1, int(_share(minutes, grade) * usual))


def _share(minutes: float, grade: Grade | None) -> float:
    """Of the usual steps, by the quality of the recordings."""
    return _MUCH_SHARE if grade == "good" and minutes >= _MUCH_MINUTES else _SHARES[grade]


# -- the decisions -------------------------------------------------------------------------------------------------
def _preset(material: Material, machine: Machine, begun: Begun | None, chosen: str) -> Line:
    source, khz = "docs/training.md#which-preset", material.bandwidth_hz / 1000
    if begun:
        return Line("preset", begun.preset, "This training has this preset, and can only go on with it.", source)
    if chosen:
        return Line("preset", chosen, "You chose it.", source)
    kind, device = ("v2-", "GPU") if machine.memory_gb >= _LEAST_GB else ("nano", "CPU")
    reached = material.bandwidth_hz or _NEEDS_HZ["v2-40k"]
    name = next(one for one, least in _NEEDS_HZ.items() if one.startswith(kind) and reached >= least)
    half_khz = PRESETS[name].sample_rate / 2000
    if machine.gpus and kind == "nano":
        why = f"{machine.memory_gb:.1f} GB of GPU memory are too few for v2, where one clip takes 2.0 GB."
        return Line("preset", name, why, "docs/gpu.md#measured")
    if not khz:
        why = "The recordings were not measured, so this is the usual preset for this device."
    elif half_khz > 1.25 * khz:
        why = f"The recordings reach {khz:.1f} kHz only. Of the presets for a {device} this one has the lowest rate."
    elif half_khz >= khz:
        why = f"The recordings reach {khz:.1f} kHz, this preset {half_khz:g} kHz. A higher rate has nothing to learn."
    elif name in ("v2-48k", "nano-24k"):
        why = f"The recordings reach {khz:.1f} kHz, this preset {half_khz:g} kHz. None for a {device} reaches higher."
    else:
        why = f"The recordings reach {khz:.1f} kHz, this preset {half_khz:g} kHz. The next higher one goes beyond them."
    return Line("preset", name, why, source)


def _epochs(material: Material, name: str, begun: Begun | None) -> Line:
    steps, size = budget_steps(material.minutes, material.grade, name), material.minutes
    passes = max(1, round(steps / math.ceil(material.clips / USUAL_CLIPS)))
    source = _RUNS if name.startswith("nano") else f"{_GUIDES}#epochs-and-steps"
    done = begun.epochs if begun else 0
    if begun and begun.state in ("good", "overtrained", "collapsed"):
        why = "The verdict says that more epochs do not help this training. Read it, and take its best voice."
        return Line("epochs", done, why, "docs/overtraining.md#states")
    if done >= passes and begun:
        more = begun.state == "undertrained"
        why = "The budget is used up, and the verdict says that the voice still gets better: half as much again."
        enough = "The budget is used up, and too little was measured to ask for more. Listen to the saved voices."
        return Line("epochs", math.ceil(1.5 * done) if more else done, why if more else enough, f"{_RUNS}")
    if passes > _MOST_PASSES:
        why = f"{size:.1f} minutes are so few that more than {_MOST_PASSES} passes teach nothing new. Record more."
        return Line("epochs", _MOST_PASSES, why, f"{_GUIDES}#rounds-by-quality-and-minutes")
    percent = f"{100 * _share(size, material.grade):.0f} %"
    if percent == "100 %":
        why = f"A budget of {steps} steps of 8 clips for {size:.1f} minutes. The best epoch is not known before."
        return Line("epochs", passes, why, source)
    if material.grade == "good":
        why = f"A budget of {steps} steps of 8 clips, {percent} of the usual: an hour of clean sound bears more passes."
    elif material.grade:
        why = (
            f"A budget of {steps} steps of 8 clips, {percent} of the usual: a voice learns the recordings' faults too."
        )
    else:
        why = (
            f"A budget of {steps} steps of 8 clips, {percent} of the usual: the recordings are not here to be measured."
        )
    return Line("epochs", passes, why, f"{_GUIDES}#rounds-by-quality-and-minutes")


def _batch(material: Material, machine: Machine, begun: Begun | None, name: str) -> Line:
    """Clips on each GPU."""
    source = f"{_GUIDES}#batch-size"
    if begun:
        why = "This training has this batch size. Another one begins its epoch again."
        return Line("batch_size", begun.batch_size, why, source)
    together = min(material.clips, _MOST_CLIPS if material.clips >= _MANY_CLIPS else USUAL_CLIPS)
    count = len(machine.gpus)
    one = max(1, -(-together // max(1, count)))
    suits = f"{together} a step suit {material.clips} clips"
    if count > 1:
        suits = f"{suits}, shared by {count} GPUs"
    if machine.measured:
        fit = machine.measured["clips_per_step"]
        why = f"rvc check --gpu measured that {fit} clips fit. {suits}."
        return Line("batch_size", max(1, min(one, fit)), why, OWN_GPU)
    if machine.gpus and not name.startswith("nano"):
        card_gb, limit = guide_batch(machine.memory_gb)
        why = f"A guide allows {limit} on a card of {card_gb} GB. {suits}. The value auto would measure what fits."
        return Line("batch_size", min(one, limit), why, source)
    why = f"{suits}: larger batches make fewer steps and learn no better."
    return Line("batch_size", one, why, source)


def _gpus(material: Material, machine: Machine, name: str, batch: Any, epochs: int) -> Line | None:
    """Whether more than one GPU pays; None with fewer."""
    count, source = len(machine.gpus), "docs/training.md#several-gpus"
    if count < 2 or not isinstance(batch, int):
        return None
    alone = machine.with_one_gpu()
    whole = min(count * batch, _batch(material, alone, None, name).value)
    minute = epochs * OVERHEAD / 60
    one = minute * math.ceil(material.clips / whole) * step_of(alone, name, whole)[0]
    all_of_them = minute * math.ceil(material.clips / (count * batch)) * step_of(machine, name, batch)[0]
    if not one:
        return Line("gpus", 0, "All GPUs: how fast they are is not known. batch_size counts for each.", source)
    if one < _SECOND_GPU_MINUTES:
        return Line("gpus", 1, f"One GPU takes {one:.0f} minutes, so a second is not worth its exchange.", OTHER_CARDS)
    why = f"All GPUs: {all_of_them:.0f} minutes instead of {one:.0f} with one, by estimate. batch_size counts for each."
    return Line("gpus", 0 if all_of_them < one else 1, why, OTHER_CARDS)


def _time(steps: int, clips: int, step: tuple[float, str], machine: Machine, minutes: float | None) -> Iterator[Line]:
    """How long it takes, and in how many sessions."""
    seconds, source = step
    if not steps:
        yield Line("sessions", 0, "Nothing is left to train.", "docs/overtraining.md#states")
        return
    if not seconds:
        why = "No step of this GPU is known. rvc check --gpu measures one in under a minute; training tells it too."
        yield Line("training_minutes", "?", why, source)
        return
    needed, sizes = steps * seconds * OVERHEAD / 60, f"{steps} steps of {clips} clips, {seconds:.2f} s each"
    if source == OWN_RUN:
        why = f"{sizes}, as this training took on this machine."
    elif source == OWN_GPU:
        why = f"{sizes}, as rvc check --gpu measured."
    elif source == OTHER_CARDS:
        why = f"{sizes}, estimated for this card: a step on it was not measured."
    else:
        why = f"{sizes}, as measured on one core of another CPU."
    yield Line("training_minutes", round(needed, 1), why, source)
    limits = [limit for limit in (minutes, machine.session_minutes) if limit is not None]
    if not limits:
        return
    now, where = min(limits), f"{_GUIDES}#sessions"
    whole = min([limit for limit in (minutes, machine.whole_session_minutes) if limit is not None], default=now)
    if needed > now:
        count = 1 + math.ceil((needed - now) / max(1.0, whole))
        why = f"This session has {now:.0f} minutes on {machine.platform}. Each one goes on where the last one ended."
        yield Line("sessions", count, why, where)
    elif now > _AMPLE * needed:
        why = f"The time is enough for {now / needed:.0f} times as much. More passes would help little."
        yield Line("sessions", 1, why, _RUNS)
    else:
        yield Line("sessions", 1, f"It fits into the {now:.0f} minutes that there are.", where)


def _saves(epochs: int, epoch_seconds: float) -> Line:
    least = math.ceil(_SAVE_SECONDS / epoch_seconds) if epoch_seconds else 1
    every = max(1, min(max(round(epochs / _SAVES), least), math.ceil(epochs / _LEAST_SAVES)))
    why = (
        f"That saves {counted(max(1, epochs // every), 'voice')} to choose from. Checkpoints come every 10 minutes too."
    )
    return Line("save_every_epochs", every, why, f"{_GUIDES}#save-frequency")


def _constants(machine: Machine) -> Iterator[Line]:
    """What is best left as it is, and what that means here."""
    newest = min((gpu.capability for gpu in machine.gpus), default=(0, 0))
    half = "bf16" if newest >= (8, 0) else "fp16"
    why = f"auto takes {half} here, if it matches fp32 in a test before the first step."
    why = why if newest >= (7, 0) else "auto takes fp32 on this device."
    yield Line("precision", "auto", why, "docs/training.md#number-format")
    why = f"auto takes {'rmvpe' if machine.has_rmvpe else 'fcpe'} here. Clips keep the method that they have."
    yield Line("f0_method", "auto", why, "docs/benchmarks.md#pitch-estimators")
    why = "Start from the base model: from random weights a voice reached a likeness of 0.56 instead of 0.80."
    yield Line(
        "base_generator", "auto", why, "docs/benchmarks.md#real-people-two-minutes-of-a-voice-ten-minutes-of-training"
    )
    why = "The preset's own. You may lower it; raising it gains nothing."
    yield Line("learning_rate", "auto", why, f"{_GUIDES}#learning-rate")


def _material_lines(material: Material) -> Iterator[Line]:
    """What to do about the recordings before training."""
    for names, problem in material.to_fix[:_MOST_FIXES]:
        yield Line("recordings", names, problem, f"{_GUIDES}#recordings")
    source, left = f"{_GUIDES}#minutes-of-recordings", f"{material.minutes:.1f} min"
    if material.minutes < _FEW_MINUTES:
        why = "Without silence and held-out recordings. Ten minutes or more make a better voice: record more first."
        yield Line("recordings", left, why, source)
    elif material.minutes > _TOO_MANY_MINUTES or material.minutes > _SATURATED_MINUTES and material.grade != "good":
        why = (
            "Beyond half an hour quality counts more than length: keep the cleanest recordings, and remove the others."
        )
        yield Line("recordings", left, why, source)
    elif material.minutes > _SATURATED_MINUTES:
        yield Line("recordings", left, "Enough: beyond half an hour more minutes help little, and do no harm.", source)
    if material.minutes >= LEAST_MINUTES:
        why = "An hour or more: it groups clips by manner of speaking, and --groups trains on those that you choose."
        yield Line("recordings", "rvc extract", why, "docs/survey.md#groups")
    if material.speakers > 1:
        why = f"{material.speakers} speakers share the steps, and each learns from its own recordings."
        yield Line("speakers", "folders", why, "docs/training.md#several-speakers-no-pitch-other-weights")


def _verdict(material: Material) -> Line:
    if material.has_heldout:
        why = "Train, then read the verdict: no plan knows the best epoch. It names the saved voice to take."
        return Line("verdict", "rvc verdict", why, "docs/overtraining.md#how-often-it-is-right")
    why = "Nothing is held out, so nothing can be measured: listen to the saved voices."
    return Line("verdict", "rvc verdict", why, "docs/overtraining.md#what-is-measured-and-when")


def plan_of(
    layout: Layout,
    dataset: Path | None,
    minutes: float | None = None,
    settings: PrepareSettings = PrepareSettings(),
    *,
    runtime: RuntimeSettings = RuntimeSettings(),
    progress: Progress = Silent(),
) -> tuple[DatasetReport | None, Plan]:
    """Survey the recordings of an experiment, and plan its training; the survey is None if they are gone.

    Parameters
    ----------
    settings : PrepareSettings
        Those that you chose yourself: a preset, speakers, what is held out.

    Raises
    ------
    StageOrderError
        When there are neither recordings nor clips.
    """
    refuse_no_time(minutes)
    try:
        record: ExperimentRecord | None = ExperimentRecord.load(layout)
    except StageOrderError:
        record = None
    place = dataset or (Path(record.dataset) if record else None)
    if place is None:
        raise StageOrderError(f"{layout.name!r} has no recordings yet", hint="name them: rvc plan NAME --dataset PLACE")
    is_same = record is not None and Path(record.dataset) == place.absolute()
    manifest = Manifest.load(layout) if is_same else None
    survey = (
        None
        if manifest and not place.exists()
        else inspect(place, by_folder=settings.speakers == "folders", progress=progress)
    )
    material = material_of(survey, settings, manifest) if survey else of_clips(manifest or Manifest())
    chosen = settings.preset if "preset" in settings.model_fields_set else ""
    return survey, plan(material, Machine.here(runtime), minutes, Begun.of(layout), chosen)

"""What a stage did, in sentences: what a reader at a terminal wants to know, and which command comes next."""

from collections.abc import Callable, Iterator

from ..progress import counted
from ..workspace.layout import typed
from .arguments import Result


def in_sentences(command: str, name: str, result: Result) -> list[str] | None:
    """The lines to print for a result; None for commands whose values are shown one by one.

    Examples
    --------
    >>> in_sentences("index", "alice", {"vectors": 6017, "skipped": True, "path": "alice.index", "warnings": []})
    ['The index was made before; nothing changed: 6017 features, alice.index']
    >>> in_sentences("golden", "", {}) is None
    True
    """
    return [*_SENTENCES[command](name, result)] if command in _SENTENCES else None


def _time(seconds: float) -> str:
    """Minutes and seconds, as on a clock."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"


def _before(skipped: bool) -> str:
    return "was made before; nothing changed" if skipped else "is made"


def _prepared(name: str, result: Result) -> Iterator[str]:
    kept, clips, files = result["seconds_kept"], counted(result["clips"], "clip"), result["recordings"]
    again = "Nothing changed since they were prepared: " if result["skipped"] else ""
    yield f"{again}{clips} from {counted(files, 'recording')}, {_time(kept)} of {_time(result['seconds_in'])}"
    for reason, seconds in result["explained"].items():
        yield f"  left out: {_time(seconds)}, {reason}"
    if result["heldout_seconds"]:
        yield f"  held out for validation: {_time(result['heldout_seconds'])}"
    yield from _warned(result)


def _extracted(name: str, result: Result) -> Iterator[str]:
    yield f"Features of {counted(result['done'] + result['skipped'], 'clip')}, {result['skipped']} of them from before"
    for clip, reason in result["failed"].items():
        yield f"  failed: {clip}: {reason}"
    yield from _warned(result)


def _indexed(name: str, result: Result) -> Iterator[str]:
    yield f"The index {_before(result['skipped'])}: {result['vectors']} features, {result['path']}"
    yield from _warned(result)


def _trained(name: str, result: Result) -> Iterator[str]:
    called = typed(name)
    if "stopped_by" not in result:  # it goes on, or was not running
        if not result.get("running"):
            yield f"{name!r} is not being trained"
            return
        yield f"{name!r} is trained on in the background; its log: {result['log']}"
        yield f"  to see it: rvc train {called}; to end it: rvc stop {called}"
        return
    yield (
        f"{name!r} is trained to epoch {result['epochs']} ({counted(result['steps'], 'step')}; "
        f"this time {_time(result['seconds'])}): {_ENDS.get(result['stopped_by'], result['stopped_by'])}"
    )
    first = result.get("averaged_from")
    average = "" if first is None else f", the average of epochs {first} to {result['epochs']}"
    yield f"  the voice: {result['voice'] or 'none is saved yet'}{average}"
    yield from _warned(result)
    if result["voice"]:
        judged = result["heldout_mel_last"] is not None
        yield f"  next: rvc convert {called} SONG" + (f"; which epoch is best: rvc verdict {called}" if judged else "")


def _ran(name: str, result: Result) -> Iterator[str]:
    for stage in ("prepare", "extract", "index", "train"):
        if stage in result:
            yield from _SENTENCES[stage](name, result[stage])


def _converted(name: str, result: Result) -> Iterator[str]:
    for file in result["files"]:
        if "error" in file:
            continue  # told on stderr
        moved = f", {file['transpose']:+g} semitones" if file["transpose"] else ""
        yield f"{file['output']}: {_time(file['seconds'])}{moved}, {file['real_time_factor']:.2f} s per second of sound"
        yield from _warned(file)


def _sung(name: str, result: Result) -> Iterator[str]:
    for song in result["files"]:
        if "error" in song:
            continue
        again = "was made before; nothing changed: " if song["skipped"] else ""
        yield f"{again}{song['output']}: {_time(song['seconds'])}, and {counted(len(song['stems']), 'stem')} beside it"
        moved = ", ".join(f"{part} {semitones:+g} semitones" for part, semitones in song["transpose"].items())
        yield f"  {moved}; true peak {song['levels']['true_peak_db']:.1f} dB"
        yield from _warned(song)


def _spoken(name: str, result: Result) -> Iterator[str]:
    count = counted(len(result["spoken"]), "sentence")
    yield f"{result['output']}: {_time(result['seconds'])}, {count}, {result['transpose']:+g} semitones"
    yield f"  {result['engine']} spoke, and the voice said it again"
    if words := result["words"]:
        own = f"{words['engine_error_rate']:.0%} of the engine's own speech"
        yield f"  a recogniser misses {words['error_rate']:.0%} of the words, and {own}"
        if words["unknown"]:
            count = f"{words['unknown']} of {words['words'] + words['unknown']} words"
            yield f"  {count} were not judged: they are not in its dictionary"
    yield from (f"  cue {one['number']} ends {one['late_seconds']:.1f} s late" for one in _late(result["spoken"]))
    yield from _warned(result)


def _late(spoken: list[Result]) -> list[Result]:
    return [one for one in spoken if one["late_seconds"] > 0]


def _separated(name: str, result: Result) -> Iterator[str]:
    for song in result["songs"]:
        if "error" in song:
            continue
        for stem, place in song["stems"].items():
            level_db = song["levels_db"][stem]
            yield f"{place}: {'silent' if level_db is None else f'{level_db:.0f} dB'}"
        for note in song["notes"]:
            yield f"  note: {note}"


def _warned(result: Result) -> Iterator[str]:
    for warning in result["warnings"]:
        yield f"  note: {warning}"


_ENDS = {
    "epochs": "all epochs are done",
    "time": "its time was up",
    "verdict": "it had passed its best",
    "stop": "it was stopped",
    "interrupt": "it was interrupted",
}
_SENTENCES: dict[str, Callable[[str, Result], Iterator[str]]] = {
    "prepare": _prepared,
    "extract": _extracted,
    "index": _indexed,
    "train": _trained,
    "stop": _trained,
    "run": _ran,
    "convert": _converted,
    "song": _sung,
    "separate": _separated,
    "speak": _spoken,
}

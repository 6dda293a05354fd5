"""Cases to evaluate: which output was converted from which source."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..audio.waveform import Audio
from ..errors import SettingsError


@dataclass(frozen=True)
class Case:
    """One source and its converted output.

    Attributes
    ----------
    source : Path
    output : Audio
    file : str
        Path of the output; empty if it is only in memory.
    text : str
        Words of the source; empty if unknown.
    facts : mapping
        Other values for the report, such as the transposition.
    notes : sequence of str
    """

    source: Path
    output: Audio
    file: str = ""
    text: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


def match_outputs(sources: Sequence[Path], outputs: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Pair sources with outputs, in the order of the outputs: by file name, or by order if no name matches.

    The name of an output starts with the name of its source: ``hello_alice.wav`` belongs to ``hello.wav``.

    Raises
    ------
    SettingsError
        When only some names match, or none and the numbers differ.

    Examples
    --------
    >>> pairs = match_outputs([Path("a.wav"), Path("a_b.wav")], [Path("a_b_eve.flac"), Path("a_eve.flac")])
    >>> [source.name for source, _ in pairs]
    ['a_b.wav', 'a.wav']
    """
    named = [_source_named(output.stem, sources) for output in outputs]
    if None not in named and len(set(named)) == len(named):
        return [(source, output) for source, output in zip(named, outputs, strict=True) if source]
    if any(named) or len(sources) != len(outputs):
        lost = next((output for output, source in zip(outputs, named, strict=True) if not source), outputs[0])
        raise SettingsError(
            f"{len(outputs)} files and {len(sources)} sources: no source belongs to {lost.name!r}",
            hint="name each file after its source (hello_alice.wav for hello.wav), or one file per source",
        )
    return list(zip(sources, outputs, strict=True))


def _source_named(stem: str, sources: Sequence[Path]) -> Path | None:
    """The source whose stem is the longest prefix of `stem`; None if several or none fit."""
    fitting = [source for source in sources if stem == source.stem or stem.startswith(f"{source.stem}_")]
    longest = max((len(source.stem) for source in fitting), default=0)
    best = [source for source in fitting if len(source.stem) == longest]
    return best[0] if len(best) == 1 else None

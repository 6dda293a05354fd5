"""What `evaluate` measures: which output was made of which source."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..audio.waveform import Audio
from ..errors import SettingsError


@dataclass(frozen=True)
class Case:
    """One source and what was made of it.

    Attributes
    ----------
    source : Path
    output : Audio
    file : str
        Where the output is; empty if it is in memory only.
    text : str
        What is said; empty if that is not known.
    facts : mapping
        What else is known of it, such as its transposition; goes into the report as it is.
    notes : sequence of str
    """

    source: Path
    output: Audio
    file: str = ""
    text: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


# -- which output belongs to which source --------------------------------------------------------------------------
def match_outputs(sources: Sequence[Path], outputs: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Pair sources with outputs, in the order of the outputs: by file name, else by order.

    ``hello_alice.wav`` was made of ``hello.wav``: an output's name is its source's, or begins with it.

    Raises
    ------
    SettingsError
        When names do not tell, and there are not as many outputs as sources, or their order contradicts the names.

    Examples
    --------
    >>> pairs = match_outputs([Path("a.wav"), Path("a_b.wav")], [Path("a_b_eve.flac"), Path("a_eve.flac")])
    >>> [source.name for source, _ in pairs]
    ['a_b.wav', 'a.wav']
    """
    named = [_source_named(output.stem, sources) for output in outputs]
    if None not in named and len(set(named)) == len(named):
        return [(source, output) for source, output in zip(named, outputs, strict=True) if source]
    if len(sources) != len(outputs):
        lost = next((output for output, source in zip(outputs, named, strict=True) if not source), outputs[0])
        raise SettingsError(
            f"{len(outputs)} files and {len(sources)} sources: which was {lost.name!r} made of?",
            hint="name the files after their sources (hello_alice.wav of hello.wav), or give as many",
        )
    for source, output, other in zip(sources, outputs, named, strict=True):
        if other not in (None, source) and named.count(other) == 1:
            raise SettingsError(
                f"{output.name!r} stands where {source.name!r} does, and is named after {other.name!r}",
                hint="give files and sources in one order, or name every file after its source",
            )
    return list(zip(sources, outputs, strict=True))


def _source_named(stem: str, sources: Sequence[Path]) -> Path | None:
    """The one source after which an output is named: the longest stem that it begins with."""
    fitting = [source for source in sources if stem == source.stem or stem.startswith(f"{source.stem}_")]
    longest = max((len(source.stem) for source in fitting), default=0)
    best = [source for source in fitting if len(source.stem) == longest]
    return best[0] if len(best) == 1 else None


# -- what is said --------------------------------------------------------------------------------------------------
# -- how the target sounds -----------------------------------------------------------------------------------------

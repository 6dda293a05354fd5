"""Export and import voices: folders of RVC WebUI and Applio, and the zips that people share."""

import os
import re
import shutil
import tempfile
import urllib.parse
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import MismatchError, RVCError, SettingsError, UnsafeFileError, WeightsError, printable
from ..features.retrieval import FeatureIndex
from ..progress import Progress, Silent
from ..system.download import download, web_address
from ..system.files import ensure_room, is_hidden, remove_leftovers, replace_atomically, slug_of, write_text
from ..system.inside import copy_inside
from ..system.platforms import home
from ..system.untrusted import list_zip, unzip_safely
from ..workspace.layout import Layout, voice_names
from ..workspace.voice_file import VoiceFile, load_voice, save_voice
from .library import MadeVoice, architecture_of, find_index, publish, refuse_taken, reopened, save_index

LAYOUTS, FORMATS = ("rvc", "applio", "zip"), ("pth", "safetensors")
_SUFFIXES = (".pth", ".safetensors", ".index")
_DATE = re.compile(r"_e\d+_s\d+$|_\d+e_\d+s(_best_epoch)?$")  # epoch and step: RVC and rvc_core; Applio
_WEB = ("http://", "https://")


# -- export --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class ExportReport:
    """An exported voice, read back and tested.

    Attributes
    ----------
    paths : list of str
        Voice, index (if there is one) and card; or the zip.
    rms_db : float
        Level of half a second of the exported voice, in dBFS.
    """

    name: str
    layout: str
    architecture: str
    paths: list[str]
    rms_db: float
    warnings: list[str] = field(default_factory=list)


def export_voice(source: Path, output: Path, *, layout: str = "rvc", file_format: str = "pth") -> ExportReport:
    """Write a voice, its index and a card into the folders of another program, or into a zip.

    Parameters
    ----------
    source : Path
        A voice file; its index is found as for conversion.
    output : Path
        The folder of RVC WebUI or Applio, or any other folder, which gets the same structure; for ``zip``, the folder
        of the zip, or its name.
    layout, file_format : str
        One of `LAYOUTS` and one of `FORMATS`. ``safetensors`` needs ``zip``, because only rvc_core opens such voices.
    """
    if layout not in LAYOUTS or file_format not in FORMATS:
        raise SettingsError(
            f"unknown layout or format: {layout}, {file_format}",
            hint=f"layouts: {', '.join(LAYOUTS)}; formats: {', '.join(FORMATS)}",
        )
    is_file = output.suffix.lower() in (".zip", *_SUFFIXES, ".onnx") and not output.is_dir()
    if is_file and (layout, output.suffix.lower()) != ("zip", ".zip"):
        raise SettingsError(
            f"{output} must be a folder", hint="give a folder; or one file, a zip, with --layout zip --output voice.zip"
        )
    voice = load_voice(source)
    if layout != "zip":
        _refuse_strange(voice, layout, file_format)
    index, warnings = find_index(source, voice)
    slug = slug_of(voice.info.name)
    voice_bytes = 2 * sum(weight.numel() for weight in voice.weights.values())  # fp16
    copies = 2 if layout == "zip" else 1  # a zip is unpacked as a test
    ensure_room(output, copies * (voice_bytes + (index.stat().st_size if index else 0)), is_output=True)
    if layout == "zip":
        paths, rms_db = _zipped(voice, index, output if is_file else output / f"{slug}.zip", file_format)
    else:
        folder = output / "logs" / slug
        target = (output / "assets" / "weights" if layout == "rvc" else folder) / f"{slug}.pth"
        paths, rms_db = _written(voice, index, target, folder, applio=layout == "applio")
    return ExportReport(voice.info.name, layout, architecture_of(voice.spec), list(map(str, paths)), rms_db, warnings)


def _refuse_strange(voice: VoiceFile, layout: str, file_format: str) -> None:
    program = {"rvc": "RVC WebUI", "applio": "Applio"}[layout]
    if file_format != "pth":
        raise SettingsError(
            f"{program} cannot open {file_format} voices", hint="leave out --format, or use --layout zip"
        )
    if voice.spec.version == "nano" or voice.encoder == "embedded":
        raise MismatchError(
            f"{program} cannot use {voice.info.name!r}: the voice needs the small encoder inside rvc_core",
            hint="export for rvc_core with --layout zip, or train with --preset v2-40k",
        )


def _written(
    voice: VoiceFile, index: Path | None, target: Path, folder: Path, *, applio: bool
) -> tuple[list[Path], float]:
    """Write index and card into `folder`, then the voice to `target`: a program that finds it looks for the index."""
    paths = [target]
    if index is not None:
        lists, slug = FeatureIndex.load(index).lists, slug_of(voice.info.name)
        place = folder / f"{slug}.index" if applio else Layout(folder, "").index(max(1, lists), voice.spec.version)
        with replace_atomically(place) as temporary:
            copy_inside(index, temporary)
        if FeatureIndex.load(place).dimension != voice.spec.content_width:
            raise MismatchError(
                f"the index {index.name} does not match the voice", hint="build it again: rvc index NAME"
            )
        paths.append(place)
    paths.append(folder / f"{slug_of(voice.info.name)}.md")
    write_text(paths[-1], card(voice, [path.name for path in paths[:-1]]))
    save_voice(target, voice)
    return paths, reopened(target).rms_db


def _zipped(voice: VoiceFile, index: Path | None, output: Path, file_format: str) -> tuple[list[Path], float]:
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".part-") as scratch:
        folder = Path(scratch) / output.stem
        paths, _ = _written(voice, index, folder / f"{output.stem}.{file_format}", folder, applio=False)
        with replace_atomically(output) as temporary:
            with zipfile.ZipFile(temporary, "w") as archive:  # compression hardly shrinks weights
                for path in paths:
                    archive.write(path, path.name)
                    path.unlink()  # makes room for the test
            again = unzip_safely(temporary, Path(scratch) / "again", _SUFFIXES, is_output=True)
            made = reopened(next(path for path in again if path.suffix != ".index"))
    return [output], made.rms_db


def card(voice: VoiceFile, files: list[str]) -> str:
    """A page of Markdown that describes a voice.

    Examples
    --------
    >>> from rvc_core.presets import preset
    >>> from rvc_core.workspace.voice_file import VoiceInfo
    >>> print(card(VoiceFile(preset("v2-40k"), {}, VoiceInfo("alice", epoch=60)), ["alice.pth"]).splitlines()[0])
    # alice
    """
    info, spec = voice.info, voice.spec
    median = f"{info.f0_median_hz:.0f} Hz: transpose sources to this pitch" if info.f0_median_hz else ""
    rows = {
        "files": ", ".join(files),
        "architecture": architecture_of(spec),
        "speakers": ", ".join(info.speakers) or voice.trained_speakers or "not recorded",
        "content encoder": f"{voice.encoder} {info.content_identity}",
        "epochs": info.epoch or "",
        "steps": info.step or "",
        "median pitch": median,
        "recordings": info.dataset_length,
        "author": info.author,
        "note": info.note,
        "created": info.created,
        "written by": f"rvc_core {__version__}",
        "opens in": "rvc_core only" if voice.encoder == "embedded" else "RVC WebUI, Applio, rvc_core",
    }
    table = "\n".join(f"| {key} | {_plain(value)} |" for key, value in rows.items() if value)
    return (
        f"# {_plain(info.name)}\n\n| | |\n|---|---|\n{table}\n\n"
        "The speech of this voice is synthetic. Tell people so when you share it. Only use the voice with its owner's "
        "consent.\n"
    )


def _plain(value: Any) -> str:
    """Text from a voice for a page of Markdown: it makes neither markup nor links nor lines."""
    return re.sub(r"[<>&|`\[\]]", lambda sign: f"&#{ord(sign[0])};", " ".join(printable(str(value)).split()))


# -- import --------------------------------------------------------------------------------------------------------
def import_voices(
    source: str | Path, *, name: str = "", root: Path | None = None, progress: Progress = Silent()
) -> list[MadeVoice]:
    """Import the voices of a zip, a folder, a file or a web address, each with its index.

    Each voice gets an experiment folder with its name: the newest file is ``<name>.pth``, older ones are beside it. The
    content of a file decides whether it is a voice or an index. An index must match the voice, and is assigned by its
    record, by its exact file name, or because it is the only one.

    Parameters
    ----------
    source : str or Path
        A ``.zip``, ``.pth`` or ``.safetensors``, a folder with such files at any depth, or ``https://…`` of a file.
    name : str
        Name for the voice, if there is only one.
    root : Path, optional
        Used instead of ``RVC_HOME``.

    Raises
    ------
    UnsafeFileError
        When a file is dangerous: nothing is imported then.
    """
    if not str(source).strip():
        raise SettingsError("nothing to import", hint="give a .zip, a .pth, a folder or https://…")
    place = (root or home()) / "logs"
    place.mkdir(parents=True, exist_ok=True)
    remove_leftovers(place)
    with tempfile.TemporaryDirectory(dir=place, prefix=f".part-{os.getpid()}-") as scratch:
        files, is_parcel = _arrived(str(source), Path(scratch), progress)
        voices, indexes, left_out = _readable(files, str(source))
        groups: dict[str, list[Path]] = {}
        ages = {path: (not _DATE.search(path.stem), one.info.epoch, one.info.step) for path, one in voices.items()}
        for path in sorted(voices, key=lambda path: (ages[path], path.name)):
            groups.setdefault(_name_of(path, voices), []).append(path)
        if name and len(groups) > 1:
            raise SettingsError(f"one name for {len(groups)} voices: {', '.join(groups)}", hint="leave out --name")
        jobs = {Layout.of(name or group, root): paths for group, paths in groups.items()}
        for layout in jobs:
            refuse_taken(layout, "choose another --name" if len(jobs) == 1 else "import the other files one by one")
        made: list[MadeVoice] = []
        try:
            for layout, paths in jobs.items():
                folders = {path.parent for other in groups.values() if other is not paths for path in other}
                index, warnings = _index_for(voices, paths, indexes, folders, is_parcel)
                made.append(_take(layout, paths, index, [*warnings, *(left_out if is_parcel else [])]))
                progress.say(f"{layout.name}: {made[-1].architecture}")
        except (RVCError, OSError):
            for voice in made:  # all or nothing
                shutil.rmtree(Path(voice.path).parent)
            raise
    return made


def _take(layout: Layout, paths: list[Path], index: FeatureIndex | None, warnings: list[str]) -> MadeVoice:
    """Write the voices of one name and their index as an experiment of rvc_core."""

    def fill(staged: Layout) -> list[str]:
        for path in paths:
            voice = load_voice(path)
            voice = replace(voice, info=replace(voice.info, name=layout.name))
            is_last = path == paths[-1]
            save_voice(staged.final_voice if is_last else staged.voice(voice.info.epoch, voice.info.step), voice)
        if index is not None:
            save_index(staged, index, voice)
        return warnings

    return publish(layout, fill)


def _arrived(source: str, scratch: Path, progress: Progress) -> tuple[list[Path], bool]:
    """Possible voices and indexes, downloaded and unpacked into `scratch`; and whether they were shared together."""
    path = Path(source).expanduser()
    if source.lower().startswith(_WEB):
        source = web_address(source)
        given = Path(urllib.parse.unquote(urllib.parse.urlsplit(source).path))
        known = given.suffix.lower() in (".zip", *_SUFFIXES)
        file_name = f"{printable(given.stem)[:50]}{given.suffix}" if known else "fetched.pth"
        path = download(source, scratch / file_name, None, progress)
        if not known and zipfile.is_zipfile(path) and not any(item.endswith("/data.pkl") for item in list_zip(path)):
            path = path.rename(path.with_suffix(".zip"))  # an address like …/download?id=7 has no suffix
    if path.is_dir():
        return sorted(
            item
            for item in path.rglob("*")
            if item.suffix.lower() in _SUFFIXES and item.is_file() and not is_hidden(item.relative_to(path))
        ), True
    if path.suffix.lower() == ".zip":
        return unzip_safely(path, scratch / "unpacked" / path.stem, _SUFFIXES), True
    return [path, *path.parent.glob("*.index")], False


def _readable(files: list[Path], source: str) -> tuple[dict[Path, VoiceFile], dict[Path, FeatureIndex], list[str]]:
    """Voices (without weights, to save memory), indexes, and why other files were left out."""
    voices: dict[Path, VoiceFile] = {}
    indexes: dict[Path, FeatureIndex] = {}
    reasons, left_out = [], []
    for path in files:
        try:
            if path.suffix.lower() == ".index":
                indexes[path] = FeatureIndex.load(path)
            else:
                voices[path] = replace(load_voice(path), weights={})
        except UnsafeFileError:
            raise
        except WeightsError as error:
            reasons.append(error)
            if not path.name.startswith(("G_", "D_", "f0G", "f0D", "trained_")):  # training files, often in the zip
                left_out.append(f"left out: {error}")
    if not voices:
        if len(files) == len(reasons) == 1:
            raise reasons[0]
        raise WeightsError(
            f"no voice in {source}" + (f": {reasons[0]}" if reasons else ""),
            hint="give a voice .pth of RVC or Applio; run rvc extract-voice on a G_ file; unpack zips inside zips",
        )
    return voices, indexes, left_out


def _name_of(path: Path, voices: dict[Path, VoiceFile]) -> str:
    """The voice's name without epoch and step; or the folder's name, if several voices have the same name."""
    names = {item: _DATE.sub("", voice.info.name) for item, voice in voices.items()}
    same = [item for item in voices if names[item] == names[path] and not _DATE.search(item.stem)]
    return path.parent.name if len(same) > 1 and path in same else names[path]


def _index_for(
    voices: dict[Path, VoiceFile],
    paths: list[Path],
    indexes: dict[Path, FeatureIndex],
    others: set[Path],
    is_parcel: bool,
) -> tuple[FeatureIndex | None, list[str]]:
    """The index of a voice among the imported ones, and warnings; `others` are the folders of other voices."""
    info, spec = voices[paths[-1]].info, voices[paths[-1]].spec
    owners = set().union(*(voice_names(path, info.name) for path in paths))

    def fits(index: FeatureIndex) -> bool:
        identities = {index.note.get("content_identity", ""), info.content_identity} - {""}
        return (
            index.dimension == spec.content_width
            and index.note.get("version") in (None, spec.version)
            and index.note.get("name") in (None, *owners)
            and len(identities) < 2
        )

    fitting = [path for path, index in indexes.items() if fits(index)]
    found = [
        path
        for path in fitting
        if "name" in indexes[path].note or path in Layout(path.parent, "").indexes(spec.version, owners)
    ]
    if not found and is_parcel:  # of the only voice, or of the only one in its folder
        own = paths[-1].parent
        found = [path for path in fitting if not others or (path.parent == own and own not in others)]
    if not found:
        return None, ["no index came with it"]
    return indexes[max(found, key=lambda path: indexes[path].vectors)], []

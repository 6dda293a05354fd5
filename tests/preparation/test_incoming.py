"""Recordings from anywhere: links of people, zips of any system, folders of both, paths as they are typed."""

import os
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rvc_core.audio.recordings import find_recordings, recordings_in
from rvc_core.audio.waveform import Audio, read_audio
from rvc_core.errors import AudioError, DatasetError, ResourceError, RVCError, UnsafeFileError
from rvc_core.preparation import archives, incoming, links, preview, typed_paths
from rvc_core.preparation.archives import names_of, unpack
from rvc_core.preparation.incoming import brought, save_set, sources
from rvc_core.preparation.links import address_of, fetch
from rvc_core.preparation.prepare import prepare
from rvc_core.preparation.survey import inspect
from rvc_core.preparation.typed_paths import meant
from rvc_core.settings import PrepareSettings
from rvc_core.system.download import Patience
from rvc_core.workspace.layout import Layout
from torture import voice


def sound(folder: Path, seed: int) -> bytes:
    """A short recording that differs from seed to seed but not in its size."""
    path = folder / f".sound-{seed}.wav"
    if not path.exists():
        Audio(voice(0.5, seed, 16_000), 16_000).save(path)
    return path.read_bytes()


class Heard:
    """Progress that remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def start(self, label: str, total: int) -> None:
        pass

    def advance(self, note: str = "") -> None:
        pass

    def say(self, line: str) -> None:
        self.lines.append(line)


class Web(ThreadingHTTPServer):
    """Serves `files`, by path: content, and headers that go with it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, tuple[bytes, dict[str, str]]] = {}
        self.status: dict[str, int] = {}
        self.whole: list[str] = []  # what was read to its end

    def put(self, path: str, content: bytes, **headers: str) -> str:
        self.files[path.partition("?")[0]] = content, {name.replace("_", "-"): text for name, text in headers.items()}
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    server: Web

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        content, headers = self.server.files.get(path, (b"", {}))
        status = self.server.status.get(path, 200 if path in self.server.files else 404)
        self.send_response(status)
        for name, text in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(content)
        self.server.whole.append(path)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(links, "_PATIENCE", Patience(2.0, 2, 0.01, 0.02))
    web = Web()
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield web
    web.shutdown()
    thread.join()
    web.server_close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RVC_HOME", str(tmp_path / "rvc"))
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    (tmp_path / "me").mkdir()
    return tmp_path


def packed(path: Path, *entries: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path.read_bytes()


def held(folder: Path) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in find_recordings(folder).recordings.items()}


# -- links: reuse --------------------------------------------------------------------------------------------------
def test_one_name_at_two_addresses_is_two_recordings(home: Path, web: Web) -> None:
    first = web.put("/a/song.wav", sound(home, 1), ETag='"1"')
    second = web.put("/b/song.wav", sound(home, 2), ETag='"1"')
    third = web.put("/get.php?id=2", sound(home, 3), ETag='"1"')
    taken = [brought(link, "alice") for link in (first, second, third, f"{third}2")]
    assert [path.read_bytes() for path in taken[:3]] == [sound(home, number) for number in (1, 2, 3)]
    assert [path.name for path in taken] == ["song.wav", "song.wav", "get.wav", "get.wav"] and taken[3] != taken[2]
    assert brought(first, "alice") == taken[0]


def test_two_zips_of_one_name_and_size_are_two_datasets(home: Path, web: Web) -> None:
    one, two = (packed(home / f"{number}.zip", ("a.wav", sound(home, number))) for number in (1, 2))
    assert len(one) == len(two)
    folders = [
        brought(web.put(f"/{place}/dataset.zip", data, ETag="x"), "v") for place, data in (("a", one), ("b", two))
    ]
    assert [held(folder)["a.wav"] for folder in folders] == [sound(home, 1), sound(home, 2)]
    local = home / "mine" / "dataset.zip"
    local.parent.mkdir()
    for data, seed in ((one, 1), (two, 2)):
        local.write_bytes(data)
        os.utime(local, (1e9, 1e9))
        assert held(brought(str(local), "v")) == {"a.wav": sound(home, seed)}


@pytest.mark.parametrize(
    ("headers", "again"),
    [({"ETag": '"1"'}, 0), ({"Last_Modified": "Sat, 01 Nov 2025 10:00:00 GMT"}, 0), ({}, 1)],
    ids=["etag", "date", "nothing"],
)
def test_a_file_is_fetched_again_when_its_version_is_new_or_unknown(
    home: Path, web: Web, headers: dict[str, str], again: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    real = links.download
    monkeypatch.setattr(links, "download", lambda url, *rest: (fetched.append(url), real(url, *rest))[1])
    link = web.put("/song.wav", sound(home, 1), **headers)
    file = fetch(link, home)
    stat = file.stat()
    assert fetch(link, home) == file and len(fetched) == 1 + again
    assert file.stat().st_mtime_ns == stat.st_mtime_ns, "the same bytes are the same file: clips stay up to date"
    new = {name: text.replace("1", "2") for name, text in headers.items()}
    web.put("/song.wav", sound(home, 2), **new)
    assert fetch(link, home).read_bytes() == sound(home, 2) and len(fetched) == 2 + again * 1 + (again and 0)
    assert sorted(path.name for path in file.parent.iterdir()) == ["song.wav", "source.json"]


def test_a_copy_that_was_cut_or_removed_is_fetched_again(home: Path, web: Web) -> None:
    link = web.put("/song.wav", sound(home, 1), ETag="1")
    for spoil in (
        lambda file: file.write_bytes(b"RIFF"),
        Path.unlink,
        lambda file: (file.parent / "source.json").write_text("{"),
    ):
        spoil(fetch(link, home))
        assert fetch(link, home).read_bytes() == sound(home, 1)


def test_without_a_network_the_copy_serves_and_that_is_said(home: Path, web: Web) -> None:
    link, heard = web.put("/song.wav", sound(home, 1), ETag="1"), Heard()
    file = fetch(link, home)
    for status, page in ((404, b""), (503, b""), (200, b"<html><title>Sign in</title>")):
        web.put("/song.wav", page)
        web.status["/song.wav"] = status
        assert fetch(link, home, heard) == file and file.read_bytes() == sound(home, 1)
    assert len(heard.lines) >= 3 and sum("using the copy" in line for line in heard.lines) == 3
    with pytest.raises(DatasetError, match="404|not shared"):
        fetch(link.replace("song", "other"), home)


# -- links: what came ----------------------------------------------------------------------------------------------
DRIVE_QUOTA = (
    b"<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head><body>Sorry, you can't view or "
    b"download this file at this time. Too many users have viewed or downloaded this file recently.</body></html>"
)
PAGES: dict[str, tuple[bytes, dict[str, str], str]] = {
    "a page": (b"\xef\xbb\xbf\n<!doctype HTML><title>My song</title>", {}, r"is a web page \(“My song”\)"),
    "a page that says it is audio": (b"<html>", {"Content_Type": "audio/wav"}, "is a web page"),
    "a page without a tag": (b"Please wait ...", {"Content_Type": "text/html; charset=utf-8"}, "is a web page"),
    "quota": (DRIVE_QUOTA, {}, "web page .“Google Drive - Quota exceeded”"),
    "a login": (b"<html><title>Google Drive: Sign-in</title>", {}, "web page .*Sign-in"),
    "a password": (b'<html><title>Portal</title><form><input type="password">', {}, "web page .“Portal”"),
    "an app's error": (b'{"error": "expired"}', {"Content_Type": "application/json"}, 'JSON.*"expired"'),
    "a store's error": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', {}, "AccessDenied"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", {}, "Git LFS"),
    "rar": (b"Rar!\x1a\x07\x01\x00" + bytes(99), {}, "a RAR archive"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(99), {}, "a 7z archive"),
    "tar": (bytes(257).replace(b"\0", b"n", 1) + b"ustar" + bytes(300), {}, "a tar archive"),
    "nothing": (b"", {}, "an empty file"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(99), {}, "a picture"),
}


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("path", ["/vocals.wav", "/dataset.zip", "/download?id=7"])
def test_what_is_no_recording_is_named_and_not_kept(home: Path, web: Web, name: str, path: str) -> None:
    content, headers, said = PAGES[name]
    link = web.put(path, content, **headers)
    with pytest.raises(DatasetError, match=said) as caught:
        fetch(link, home / "place")
    assert caught.value.hint and not [*(home / "place").glob("links/*")], "rvc tidy lists no empty folders"
    web.put(path, sound(home, 1))  # the link was put right: it counts at once
    assert fetch(link, home / "place").read_bytes() == sound(home, 1)


def test_a_page_that_comes_after_a_good_answer_is_not_kept_either(home: Path, web: Web, monkeypatch) -> None:
    link = web.put("/vocals.wav", DRIVE_QUOTA)
    monkeypatch.setattr(links, "_probe", lambda *_: ("", []))
    with pytest.raises(DatasetError, match="Quota exceeded"):
        fetch(link, home / "place")
    assert not [*(home / "place").glob("links/*")]


def test_a_redirect_to_a_login_is_named(home: Path, web: Web) -> None:
    target = web.put("/accounts/login", b"<html><title>Portal</title></html>")
    link = web.put("/song.wav", b"", Location=target)
    web.status["/song.wav"] = 302
    with pytest.raises(DatasetError, match="web page .“Portal”"):
        fetch(link, home)
    web.put("/song.wav", b"", Location="ftp://127.0.0.1/song.wav")
    with pytest.raises(DatasetError):
        fetch(link, home)


@pytest.mark.parametrize(
    ("status", "said"), [(403, "not shared"), (404, "no such file"), (401, "not shared"), (451, "451")]
)
def test_a_refusal_says_what_to_do(home: Path, web: Web, status: int, said: str) -> None:
    link = web.put("/song.wav", b"no")
    web.status["/song.wav"] = status
    with pytest.raises(DatasetError, match=said) as caught:
        fetch(link, home)
    assert "share" in caught.value.hint or "link" in caught.value.hint


def test_names_and_kinds_come_from_the_server_and_the_content(home: Path, web: Web) -> None:
    flac = home / "x.flac"
    Audio(voice(0.5, 1, 16_000), 16_000).save(flac)
    named = web.put("/download?id=1", sound(home, 1), Content_Disposition='attachment; filename="Olá 1.wav"')
    starred = web.put("/d2", sound(home, 1), Content_Disposition="attachment; filename*=UTF-8''%E6%AD%8C.wav")
    climbing = web.put("/d3", sound(home, 1), Content_Disposition='attachment; filename="../../evil.wav"')
    wrong = web.put("/song.zip", flac.read_bytes())
    zipped = web.put("/voice.wav", packed(home / "p.zip", ("a.wav", sound(home, 4))))
    assert fetch(starred, home).name == "歌.wav" and fetch(climbing, home).name == "evil.wav"
    assert fetch(climbing, home).is_relative_to(home / "links") and fetch(wrong, home).name == "song.flac"
    assert fetch(named, home).suffix == ".wav" and read_audio(brought(wrong, "v")).seconds == pytest.approx(0.5)
    assert held(brought(zipped, "v")) == {"a.wav": sound(home, 4)}


ID = "1AbC-dEf_GhIjKlMnOpQrStUvWxYz01234"


@pytest.mark.parametrize(
    "link",
    [
        f"https://drive.google.com/file/d/{ID}/view?usp=sharing",
        f"https://drive.google.com/file/d/{ID}",
        f"https://drive.google.com/file/u/0/d/{ID}/edit",
        f"https://drive.google.com/a/school.edu/file/d/{ID}/view",
        f"https://drive.google.com/open?usp=drive_link&id={ID}",
        f"https://drive.google.com/uc?id={ID}&export=download",
        f"https://drive.google.com/u/1/uc?export=download&id={ID}",
        f"https://docs.google.com/uc?export=download&id={ID}",
        f"http://drive.google.com/file/d/{ID}/preview#t=1",
        f"drive.google.com/file/d/{ID}/view",
        f"https://drive.usercontent.google.com/download?id={ID}&export=download&authuser=0",
    ],
)
def test_every_form_of_a_drive_link_is_the_same_file(link: str) -> None:
    assert links.is_link(link)
    assert address_of(link) == f"https://drive.usercontent.google.com/download?id={ID}&export=download&confirm=t"


def test_a_recording_on_drive_is_a_recording(home: Path, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only zips; and both forms of the link are one file."""
    content = {"Content_Disposition": 'attachment; filename="take.wav"', "ETag": "1"}
    monkeypatch.setattr(links, "_DRIVE", web.put("/download", sound(home, 1), **content))
    link = f"https://drive.google.com/file/d/{ID}/view"
    file = fetch(link, home)
    assert file.name == "take.wav" and fetch(f"https://drive.google.com/uc?id={ID}", home) == file
    web.put("/download", DRIVE_QUOTA)
    with pytest.raises(DatasetError, match="drive.google.com.*Quota exceeded"):
        fetch(link.replace("1AbC", "2AbC"), home)


@pytest.mark.parametrize(
    ("link", "said"),
    [
        (f"https://drive.google.com/drive/folders/{ID}?usp=sharing", "a folder of Google Drive"),
        (f"https://drive.google.com/drive/u/0/folders/{ID}", "a folder of Google Drive"),
        (f"https://drive.google.com/folderview?id={ID}", "a folder of Google Drive"),
        (f"https://docs.google.com/document/d/{ID}/edit", "Google document"),
        ("https://drive.google.com/drive/my-drive", "does not name a file"),
        ("https://www.youtube.com/watch?v=dQw4w9WgXcQ", "page of YouTube"),
        ("https://youtu.be/dQw4w9WgXcQ", "page of YouTube"),
        ("youtu.be/dQw4w9WgXcQ", "page of YouTube"),
        ("https://music.youtube.com/watch?v=1", "page of YouTube"),
        ("https://m.soundcloud.com/somebody/song", "page of SoundCloud"),
        ("https://open.spotify.com/track/1", "page of Spotify"),
        ("https://somebody.bandcamp.com/track/1", "page of Bandcamp"),
        ("https://mega.nz/file/abc#key", "page of MEGA"),
        ("https://we.tl/t-abc", "WeTransfer"),
        ("https://huggingface.co/datasets/o/r/tree/main/data", "a folder of huggingface.co"),
        ("https://github.com/o/r/tree/main/data", "a folder of github.com"),
        ("https://", "names no server"),
        ("http://[1", "not a web address"),
    ],
)
def test_pages_are_known_before_anything_is_fetched(home: Path, link: str, said: str) -> None:
    with pytest.raises(DatasetError, match=said) as caught:
        brought(link, "v")
    assert caught.value.hint
    with pytest.raises(DatasetError, match=said):
        meant(f" '{link}' ")


@pytest.mark.parametrize(
    ("link", "address"),
    [
        ("https://www.dropbox.com/s/k/a.zip?dl=0", "https://www.dropbox.com/s/k/a.zip?dl=1"),
        ("https://dropbox.com/s/k/a.zip", "https://dropbox.com/s/k/a.zip?dl=1"),
        (
            "https://www.dropbox.com/scl/fi/k/a.wav?rlkey=x&st=y&dl=0",
            "https://www.dropbox.com/scl/fi/k/a.wav?rlkey=x&st=y&dl=1",
        ),
        ("https://www.dropbox.com/scl/fi/k/a.wav?raw=1&rlkey=x", "https://www.dropbox.com/scl/fi/k/a.wav?rlkey=x&dl=1"),
        ("https://huggingface.co/o/r/blob/main/a/b.zip", "https://huggingface.co/o/r/resolve/main/a/b.zip"),
        (
            "https://huggingface.co/datasets/o/r/blob/main/a.wav?download=true",
            "https://huggingface.co/datasets/o/r/resolve/main/a.wav?download=true",
        ),
        ("https://huggingface.co/o/r/resolve/main/blob/a.zip", "https://huggingface.co/o/r/resolve/main/blob/a.zip"),
        ("https://github.com/o/r/blob/main/a/blob/b.wav", "https://github.com/o/r/raw/main/a/blob/b.wav"),
        ("https://gitlab.com/o/r/-/blob/main/a.wav", "https://gitlab.com/o/r/-/raw/main/a.wav"),
        ("https://example.org/my song/olá.wav#top", "https://example.org/my%20song/ol%C3%A1.wav"),
        ("https://example.org/a%20b.wav?x=1%2F2", "https://example.org/a%20b.wav?x=1%2F2"),
        ("HTTPS://Example.org/a.wav", "https://Example.org/a.wav"),
        ("https://cdn.vimeo.com/x/a.mp4", "https://cdn.vimeo.com/x/a.mp4"),
    ],
)
def test_pages_for_people_become_the_file_itself(link: str, address: str) -> None:
    assert address_of(link) == address


# -- archives ------------------------------------------------------------------------------------------------------
def test_the_parts_of_a_drive_download_are_one_dataset(home: Path) -> None:
    folder = home / "down"
    for number in (1, 2, 3):
        packed(
            folder / f"drive-download-20261126T101010Z-00{number}.zip",
            (f"alice/{number}.wav", sound(home, number)),
            ("alice/same.wav", sound(home, 10 + number)),
        )
    found = held(brought(str(folder), "v"))
    assert sorted(found) == sorted(
        [*(f"alice/{number}.wav" for number in (1, 2, 3)), *(f"alice/same{end}.wav" for end in ("", " (2)", " (3)"))]
    )
    assert len(set(found.values())) == 6, "none stands for another"


def test_zips_count_beside_loose_recordings_and_in_sub_folders(home: Path) -> None:
    folder = home / "takes"
    packed(folder / "alice.zip", ("a.wav", sound(home, 1)))
    packed(folder / "more" / "bob.zip", ("a.wav", sound(home, 2)))
    packed(folder / ".Trash" / "old.zip", ("a.wav", sound(home, 9)))
    packed(folder / "texts.zip", ("a.txt", b"text"))
    (folder / "a.wav").write_bytes(sound(home, 3))
    (folder / "left.rar").write_bytes(b"Rar!\x1a\x07")
    heard = Heard()
    dataset = brought(str(folder), "v", heard)
    found = held(dataset)
    assert found == {
        "a.wav": sound(home, 3),
        "alice/a.wav": sound(home, 1),
        "bob/a.wav": sound(home, 2),
    }
    assert brought(str(folder), "v") == dataset, "the same folder while nothing changes"
    assert any("left.rar" in line for line in heard.lines) and any("texts.zip" in line for line in heard.lines)
    assert [path.name for path in sources(str(folder), "v")][0] == "takes"
    (folder / "b.wav").write_bytes(sound(home, 4))
    assert len(held(brought(str(folder), "v"))) == 4


@pytest.mark.parametrize("name", ["a.rar", "a.7z", "a.tar", "a.tar.gz", "a.tgz", "a.zip.001", "a.z01", "a.part1.rar"])
def test_other_archives_are_named(home: Path, name: str) -> None:
    (home / "d").mkdir()
    (home / "d" / name).write_bytes(b"whatever")
    for text in (home / "d" / name, home / "d"):
        with pytest.raises(DatasetError, match=name) as caught:
            brought(str(text), "v")
        assert "unpack it first, or pack a .zip" in caught.value.hint
    shown = preview.listing([home / "d"])
    assert shown.foreign == [name] and not shown.seconds
    assert preview.listing([home / "d" / name]).foreign == [name]


@pytest.mark.parametrize("start", [b"Rar!\x1a\x07\x01\x00", b"7z\xbc\xaf\x27\x1c", b"\x1f\x8b\x08"])
def test_an_archive_that_was_renamed_is_named_too(home: Path, start: bytes) -> None:
    for name in ("a.zip", "a.wav"):
        (home / name).write_bytes(start + bytes(99))
        with pytest.raises(DatasetError, match="a (RAR|7z|gzip) archive"):
            brought(str(home / name), "v")


@pytest.mark.parametrize(
    ("name", "content"), [("a.txt", b"text"), ("a.wav", b"<!DOCTYPE html><p>"), ("a.pth", b"PK\x03\x04")]
)
def test_a_file_that_is_no_recording_is_not_counted_as_one(home: Path, name: str, content: bytes) -> None:
    (home / name).write_bytes(content)
    with pytest.raises(DatasetError, match=name):
        brought(str(home / name), "v")


def windows_zip(path: Path, names: dict[str, bytes], page: str, *, utf8_extra: bool = False) -> None:
    """A zip as Windows makes it: names in a code page, without the flag of UTF-8, parted by backslashes."""
    blank = {name: "QZX"[number] * len(name.encode(page)) for number, name in enumerate(names)}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in names.items():
            entry = zipfile.ZipInfo(blank[name])
            entry.create_system = 0
            if utf8_extra:
                raw = struct.pack("<BL", 1, zlib.crc32(name.encode(page))) + name.encode("utf-8")
                entry.extra = struct.pack("<HH", 0x7075, len(raw)) + raw
            archive.writestr(entry, content)
    data = path.read_bytes()
    for name, ascii_name in blank.items():
        assert data.count(ascii_name.encode()) == 2, "once in front of the data, once in the table"
        data = data.replace(ascii_name.encode(), name.encode(page))
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("cp437", ["takes\\café one.wav", "takes\\Über.wav", "takes\\señor.wav"]),
        ("cp850", ["Gravações\\São João canção.wav", "Gravações\\coração ímpar à noite.wav"]),
        ("cp932", ["録音\\歌声 ソロ.wav", "録音\\表示テスト.wav", "録音\\あいうえお.wav"]),
        ("cp932", ["ソ\\ー音声（１）.wav"]),
        ("gbk", ["录音\\我的声音.wav", "录音\\歌曲一.wav"]),
        ("cp866", ["Записи\\Песня один.wav", "Записи\\Ещё дубль.wav"]),
        ("utf-8", ["Алиса\\голос é 歌.wav"]),
    ],
)
def test_zips_of_windows_keep_their_recordings_and_names(home: Path, page: str, names: list[str]) -> None:
    windows_zip(home / "w.zip", {name: sound(home, number) for number, name in enumerate(names)}, page)
    found = held(brought(str(home / "w.zip"), "v"))
    assert found == {name.replace("\\", "/"): sound(home, number) for number, name in enumerate(names)}


def test_a_name_that_is_told_in_utf8_beside_another_one_is_read(home: Path) -> None:
    windows_zip(home / "w.zip", {"노래\\목소리.wav": sound(home, 1)}, "cp949", utf8_extra=True)
    assert [*held(brought(str(home / "w.zip"), "v"))] == ["노래/목소리.wav"]


def test_what_macs_add_is_left_out_in_silence_and_odd_names_are_repaired(home: Path) -> None:
    archive, heard = home / "a.zip", Heard()
    packed(
        archive,
        ("set/", b""),
        ("set/deep/er/a.wav", sound(home, 1)),
        ("./set/take 12:30?.WAV", sound(home, 2)),
        ("set/trailing .wav ", sound(home, 3)),
        (f"set/{'long ' * 60}.wav", sound(home, 4)),
        ("set/A.wav", sound(home, 5)),
        ("set/a.wav", sound(home, 6)),
        ("set/a\x1b[2J.wav", sound(home, 7)),
        ("__MACOSX/set/._a.wav", b"junk"),
        ("__MACOSX/set/b.wav", b"junk"),
        ("set/.DS_Store", b"junk"),
        ("set/._a.wav", b"junk"),
        ("Thumbs.db", b"junk"),
    )
    dataset = brought(str(archive), "v", heard)
    found = held(dataset)
    assert sum(path.is_file() for path in dataset.rglob("*")) == 7, "what a Mac adds is not unpacked at all"
    assert sorted(found.values()) == sorted(sound(home, number) for number in range(1, 8)) and not heard.lines
    assert {"set/deep/er/a.wav", "set/take 12:30?.WAV", "set/A.wav", "set/a.wav", "set/a?[2J.wav"} < {*found}


def test_one_name_twice_is_two_recordings(home: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        packed(home / "a.zip", ("a.wav", sound(home, 1)), ("a.wav", sound(home, 2)))
    assert held(brought(str(home / "a.zip"), "v")) == {"a.wav": sound(home, 1), "a (2).wav": sound(home, 2)}


def test_zips_in_zips_are_unpacked_too(home: Path) -> None:
    inner = packed(home / "i.zip", ("a.wav", sound(home, 1)))
    middle = packed(
        home / "m.zip", ("inner.zip", inner), ("b.wav", sound(home, 2)), ("empty.zip", packed(home / "e.zip"))
    )
    packed(home / "o.zip", ("middle.zip", middle), ("c.rar", b""))
    heard = Heard()
    found = held(brought(str(home / "o.zip"), "v", heard))
    assert found == {"middle/inner/a.wav": sound(home, 1), "middle/b.wav": sound(home, 2)}
    assert any("c.rar" in line for line in heard.lines)


def test_silence_that_packs_well_and_many_files_are_no_attack(home: Path) -> None:
    with zipfile.ZipFile(home / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(8100):
            archive.writestr(f"{number}.txt", b"")
        archive.writestr("silence.wav", sound(home, 1)[:44] + bytes(40 << 20))
    folder = unpack(home / "a.zip", home / "out")
    assert folder is not None and [path.name for path in folder.iterdir()] == ["silence.wav"]


def link_entry(name: str, kind: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.create_system, entry.external_attr = 3, (kind | 0o644) << 16
    return entry


@pytest.mark.parametrize(
    "entry",
    [
        "../a.wav",
        "..\\..\\a.wav",
        "set/../../a.wav",
        "__MACOSX/../../a.wav",
        "/etc/a.wav",
        "\\\\server\\a.wav",
        "C:\\Users\\me\\a.wav",
        "c:/a.wav",
        link_entry("a.wav", 0o120000),
        link_entry("a.wav", 0o020000),
        link_entry("a.wav", 0o010000),
    ],
    ids=lambda entry: str(getattr(entry, "external_attr", entry)),
)
def test_real_escapes_are_refused_in_words_about_recordings(home: Path, entry: str | zipfile.ZipInfo) -> None:
    packed(home / "a.zip", ("good.wav", sound(home, 1)), (entry, b"x"))
    before = sorted(home.rglob("*"))
    with pytest.raises(UnsafeFileError, match="recording|link") as caught:
        unpack(home / "a.zip", home / "out")
    said = f"{caught.value} {caught.value.hint}"
    assert "trust" not in said and "voice" not in said and "do not open" not in said
    assert [path for path in home.rglob("*") if path not in before and path.is_file()] == []


def locked(path: Path, content: bytes) -> None:
    data = bytearray(packed(path, ("a.wav", content)))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= 1
    path.write_bytes(data)


def method(path: Path, content: bytes) -> None:
    data = bytearray(packed(path, ("a.wav", content)))
    for mark, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        data[data.index(mark) + offset] = 9  # Deflate64
    path.write_bytes(data)


BROKEN: dict[str, tuple[Callable[[Path, bytes], object], str]] = {
    "a password": (locked, "password"),
    "Deflate64": (method, "packed in a way"),
    "torn": (lambda path, content: path.write_bytes(packed(path, ("a.wav", content))[:900]), "damaged or incomplete"),
    "flipped": (
        lambda path, content: path.write_bytes(packed(path, ("a.wav", content)).replace(content[99:120], bytes(21))),
        "damaged or incomplete",
    ),
    "a page": (lambda path, content: path.write_bytes(b"<html>"), "a web page, not a zip"),
    "no recording": (lambda path, content: packed(path, ("v.pth", b"x")), "holds no recordings"),
    "nothing": (lambda path, content: packed(path), "holds no recordings"),
    "a split zip": (
        lambda path, content: (path.write_bytes(b"abc"), path.with_suffix(".z01").write_bytes(b"PK\x07\x08")),
        "one part of a split archive",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_zip_that_cannot_be_unpacked_leaves_nothing_and_says_why(home: Path, name: str) -> None:
    write, said = BROKEN[name]
    write(home / "a.zip", sound(home, 1))
    with pytest.raises(DatasetError, match=said) as caught:
        brought(str(home / "a.zip"), "v")
    assert caught.value.hint and not [path for path in (home / "rvc").rglob("*") if path.is_file()]


def test_the_disk_is_the_limit(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed(home / "a.zip", ("a.wav", sound(home, 1)))
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10, "total": 1})())
    with pytest.raises(ResourceError, match="room"):
        unpack(home / "a.zip", home / "out")
    monkeypatch.undo()
    monkeypatch.setattr(archives, "_MOST_FILES", 1)
    packed(home / "a.zip", ("a.wav", b""), ("b.wav", b""))
    with pytest.raises(DatasetError, match="2 files"):
        unpack(home / "a.zip", home / "out")


def test_names_that_are_plain_stay() -> None:
    entries = [zipfile.ZipInfo("a/b.wav"), zipfile.ZipInfo("naïve.wav")]
    entries[1].flag_bits = 0x800
    assert names_of(entries) == ["a/b.wav", "naïve.wav"] and names_of([]) == []


# -- paths as they are typed ---------------------------------------------------------------------------------------
@pytest.fixture
def takes(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A notebook in work/notebooks, and recordings in folders around it."""
    for folder in ("me/enrico", "work/minhas vozes", "work/notebooks/here", "work/100% [final]"):
        (home / folder).mkdir(parents=True)
        (home / folder / "a.wav").write_bytes(sound(home, 1))
    (home / "work/notebooks/here/b.flac").write_bytes(b"x")
    (home / "work/notebooks/here/notes.txt").write_bytes(b"x")
    monkeypatch.chdir(home / "work" / "notebooks")
    monkeypatch.delenv("JUPYTER_SERVER_ROOT", raising=False)
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    return home


@pytest.mark.parametrize(
    ("text", "folder"),
    [
        ("here", "work/notebooks/here"),
        ("./here/", "work/notebooks/here"),
        (" here \n", "work/notebooks/here"),
        ("minhas vozes", "work/minhas vozes"),  # relative to a parent
        ("notebooks/here", "work/notebooks/here"),
        ("enrico", "me/enrico"),  # relative to the home folder
        ("/enrico", "me/enrico"),
        ("~/enrico", "me/enrico"),
        ("'{home}/work/minhas vozes'", "work/minhas vozes"),
        ('"{home}/work/minhas vozes/"', "work/minhas vozes"),
        ("“{home}/work/minhas vozes”", "work/minhas vozes"),
        ("{home}/work/minhas\\ vozes", "work/minhas vozes"),
        ("{home}/work/minhas%20vozes", "work/minhas vozes"),
        ("file://{home}/work/minhas%20vozes", "work/minhas vozes"),
        ("file://localhost{home}/work/minhas%20vozes", "work/minhas vozes"),
        ("file:{home}/me/enrico", "me/enrico"),
        ("notebooks\\here", "work/notebooks/here"),
        (".\\here\\", "work/notebooks/here"),
        ("{home}/work/100% [final]", "work/100% [final]"),
        ("{home}/me/enrico ", "me/enrico"),
        ("\u202a{home}/me/enrico", "me/enrico"),
    ],
)
def test_paths_are_understood_as_people_have_them(takes: Path, text: str, folder: str) -> None:
    [found] = meant(text.format(home=takes))
    assert isinstance(found, Path) and found.resolve() == (takes / folder).resolve()
    assert brought(text.format(home=takes), "v").resolve() == (takes / folder).resolve()


def test_the_server_s_root_is_asked_first_among_places_further_away(
    takes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = takes / "srv" / "files"
    (root / "enrico").mkdir(parents=True)
    monkeypatch.setenv("JUPYTER_SERVER_ROOT", str(root))
    assert meant("enrico") == [root / "enrico"]
    (takes / "elsewhere" / "near").mkdir(parents=True)
    monkeypatch.setenv("JPY_SESSION_NAME", str(takes / "elsewhere" / "my.ipynb"))
    assert meant("near") == [takes / "elsewhere" / "near"]


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("hare", "work/notebooks there is: here"),
        ("Here/", "work/notebooks there is: here"),
        ("here/b.flak", "here there is: b.flac"),
        ("../minhas voces", "work/notebooks/.. there is: minhas vozes"),
        ("{home}/work/minhas voces/a.wav", "work there is: minhas vozes"),
        ("{home}/me/Enrico’s", "me there is: enrico"),
    ],
)
def test_a_mistyped_path_is_told_what_is_there(takes: Path, text: str, near: str) -> None:
    with pytest.raises(DatasetError, match="there is no") as caught:
        meant(text.format(home=takes))
    assert near in caught.value.hint


def test_letters_with_accents_are_found_however_they_are_parted(takes: Path) -> None:
    (takes / "work" / "notebooks" / "voce\u0302").mkdir()
    assert len(meant("voc\u00ea")) == 1


def test_patterns_take_recordings_and_nothing_else(takes: Path) -> None:
    here = takes / "work" / "notebooks" / "here"
    assert meant("here/*.wav") == [here / "a.wav"] and meant(f'"{here}/*"') == [here / "a.wav", here / "b.flac"]
    assert meant(str(takes / "**" / "*.flac")) == [here / "b.flac"]
    two = brought(f"{takes}/work/*/*.wav", "v")
    assert sorted(held(two)) == ["100% [final]/a.wav", "minhas vozes/a.wav"]
    with pytest.raises(DatasetError, match="there is no .*here/.*mp3"):
        meant("here/*.mp3")
    with pytest.raises(DatasetError, match="much more"):
        meant("/**/*.wav")


@pytest.mark.parametrize(
    "text",
    [
        "nobody",
        "~nobody/x",
        "a\0b",
        "x" * 5000,
        "x" * 5000 + "/y",
        f"/{'x' * 300}/y",
        "here/a.wav/b",
        "file:///nobody%00",
    ],
)
def test_what_is_not_there_is_one_sentence_that_says_where_was_looked(takes: Path, text: str) -> None:
    with pytest.raises(DatasetError, match="there is no") as caught:
        meant(text)
    assert caught.value.hint and "\n" not in str(caught.value)
    if text == "nobody":
        assert str(takes / "work" / "notebooks") in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("C:\\Users\\me\\takes", "on this machine"),
        ("file:///C:/Users/me/takes", "on this machine"),
        ("\\\\server\\takes", "on this machine"),
        ("ftp://example.org/a.wav", "on this machine"),
        ("s3://bucket/a.wav", "on this machine"),
    ],
)
def test_paths_of_elsewhere_are_known(takes: Path, text: str, said: str) -> None:
    with pytest.raises(DatasetError, match=said):
        meant(text)
    assert meant("www.example.org/a.wav") == "www.example.org/a.wav"
    assert address_of("www.example.org/a.wav") == "https://www.example.org/a.wav"


def test_a_slip_of_the_finger_is_answered_with_what_is_there(takes: Path) -> None:
    with pytest.raises(DatasetError, match="enrcio") as caught:
        meant(f"{takes}/me/enrcio/x")
    assert "enrico" in caught.value.hint
    for nothing in ("", "  ", '""'):
        with pytest.raises(DatasetError, match="no recordings are named"):
            meant(nothing)


@pytest.mark.parametrize("text", ["/", "//", "/home", "/usr/", "~", "/usr/..", "/proc"])
def test_a_whole_machine_is_refused(takes: Path, text: str) -> None:
    with pytest.raises(DatasetError, match="much more than recordings") as caught:
        meant(text)
    assert "*.wav" in caught.value.hint


@pytest.mark.parametrize("root", ["content", "kaggle", "teamspace", "content/drive", "content/drive/MyDrive"])
def test_platforms_and_drives_are_refused_and_their_folders_are_not(
    takes: Path, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (takes / root / "takes").mkdir(parents=True)
    (takes / root / "takes" / "a.wav").write_bytes(sound(takes, 1))
    (takes / root / "a.wav").write_bytes(sound(takes, 1))
    monkeypatch.setattr(typed_paths, "_WHOLE", tuple(f"{takes}{path}" for path in typed_paths._WHOLE))
    for text in (f"{takes}/{root}", f"{takes}/{root}/", f"{takes}/{root}/takes/.."):
        with pytest.raises(DatasetError, match="much more"):
            meant(text)
    (takes / "linked").symlink_to(takes / root)
    with pytest.raises(DatasetError, match="much more"):
        meant(str(takes / "linked"))
    assert meant(f"{takes}/{root}/takes") == [takes / root / "takes"]
    assert meant(f"{takes}/{root}/*.wav") == [takes / root / "a.wav"]


def test_the_folder_of_our_own_experiments_is_no_dataset(takes: Path) -> None:
    (takes / "rvc" / "mine").mkdir(parents=True)
    assert meant(str(takes / "rvc")) == [takes / "rvc"]
    (takes / "rvc" / "logs").mkdir()
    with pytest.raises(DatasetError, match="much more"):
        meant(str(takes / "rvc"))
    assert meant(str(takes / "rvc" / "mine")) == [takes / "rvc" / "mine"]


@pytest.mark.parametrize("number", [13, 107, 5, 116], ids=["permission", "dead mount", "input/output", "stale"])
def test_a_drive_that_is_gone_is_one_sentence(takes: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.stat

    def stat(path: object, *rest: object, **options: object) -> os.stat_result:
        if "gone" in str(path):
            raise OSError(number, os.strerror(number), str(path))
        return real(path, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", stat)
    with pytest.raises(DatasetError, match=os.strerror(number)) as caught:
        meant(f"{takes}/gone/voices")
    assert "mount" in caught.value.hint


def test_a_folder_that_may_not_be_read_is_one_sentence_and_a_sub_folder_is_listed(
    takes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (takes / "set" / "locked").mkdir(parents=True)
    (takes / "set" / "a.wav").write_bytes(sound(takes, 1))
    real = os.scandir

    def scandir(path: object) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", scandir)
    found = find_recordings(takes / "set")
    assert [*found.recordings] == ["a.wav"] and [*found.ignored_folders] == ["locked"]
    with pytest.raises(DatasetError, match="Permission denied"):
        brought(str(takes / "set" / "locked"), "v")


@pytest.mark.parametrize("text", ["away", "./away", "away/takes", "{here}/away", "{here}/away/takes", "away/*.wav"])
def test_a_link_to_nothing_is_told_from_a_wrong_name(home: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    (home / "away").symlink_to("/unplugged/takes")
    with pytest.raises(DatasetError, match="a link to /unplugged/takes, and nothing is there") as caught:
        meant(text.format(here=home))
    assert "mount the drive" in caught.value.hint
    with pytest.raises(DatasetError, match="a link to /unplugged/takes, and nothing is there"):
        find_recordings(home / "away")
    with pytest.raises(AudioError, match="a link to /unplugged/takes, and nothing is there"):
        recordings_in([home / "away" / "a.wav"])


def test_listing_keeps_the_order_of_sorted_paths(tmp_path: Path) -> None:
    for name in ("a/z.wav", "a.wav", "a b/c.wav", "B/1/x.wav", "B/0.wav", "é/x.wav", ".h/x.wav", "a/.x/y.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nothing")
    found = find_recordings(tmp_path)
    everything = [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*.wav"))]
    assert [*found.recordings] == [name for name in everything if name not in (".h/x.wav", "a/.x/y.wav")]
    assert [*found.ignored] == [".h/x.wav", "a/.x/y.wav"] and [*found.ignored_folders] == [".h", "a/.x", "loop"]


def test_a_linked_folder_is_named_in_every_report(home: Path) -> None:
    takes, layout = home / "takes", Layout.of("v")
    for folder in (takes, home / "elsewhere"):
        folder.mkdir()
        (folder / "a.wav").write_bytes(sound(home, 1))
    settings = PrepareSettings(preset="nano")
    assert not any("linked" in line for line in prepare(layout, takes, settings).warnings)
    (takes / "more").symlink_to(home / "elsewhere")
    for told in (str(inspect(takes)), "\n".join(prepare(layout, takes, settings).warnings)):
        assert "more/: " in told and "a linked folder, which is not followed: copy the folder itself" in told
    (takes / "a.wav").unlink()
    with pytest.raises(DatasetError, match="no recordings in takes; more: a linked folder, which is not followed"):
        brought(str(takes), "v")


# -- uploads -------------------------------------------------------------------------------------------------------
def test_each_upload_is_a_set_of_its_own(home: Path) -> None:
    first = save_set(home / "uploads", [("wrong.wav", b"1"), ("folder\\wrong.wav", b"2"), ("../../.evil.wav", b"3")])
    second = save_set(home / "uploads", [("right.wav", b"4")])
    assert [path.name for path in second.iterdir()] == ["right.wav"]
    assert sorted(path.name for path in first.iterdir()) == ["evil.wav", "wrong (2).wav", "wrong.wav"]
    assert first.parent == second.parent == home / "uploads" and first != second


def test_errors_of_incoming_recordings_are_of_our_tree() -> None:
    assert issubclass(DatasetError, RVCError) and incoming.__doc__

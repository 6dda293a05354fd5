"""Downloads from a server that truncates, stalls, corrupts, redirects, refuses and lies; the registry; the bundle."""

import dataclasses
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from rvc_core.assets import archive, bundle, registry
from rvc_core.assets.archive import unpack
from rvc_core.assets.bundle import make_bundle
from rvc_core.cli import main
from rvc_core.errors import ResourceError, SettingsError, UnsafeFileError, WeightsError
from rvc_core.features.content import content_identity
from rvc_core.presets import preset
from rvc_core.system.download import Patience, download, partial_of

ROOT = Path(__file__).parents[2]
CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ALONE = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]  # Jupyter's kernels need the loopback
HASTE = Patience(stall_seconds=0.3, attempts=2, wait_seconds=0.01, longest_wait_seconds=0.02)
STEADY = dataclasses.replace(HASTE, attempts=6)


class Server(ThreadingHTTPServer):
    """Answers each request by the next of `answers` (the last one for ever) and notes what was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Callable[[Handler], None]] = [serve()]
        self.asked: list[tuple[str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        answers = self.server.answers
        (answers.pop(0) if len(answers) > 1 else answers[0])(self)

    def log_message(self, *arguments: object) -> None:
        pass


def serve(
    content: bytes = CONTENT,
    *,
    ranges: bool = True,
    stop_after: int | None = None,
    stall: bool = False,
    etag: str = '"one"',
    stated: int | None = None,
) -> Callable[[Handler], None]:
    """Send the file as a good server does, but for what the arguments say."""

    def answer(handler: Handler) -> None:
        asked, known = handler.headers.get("Range", ""), handler.headers.get("If-Range", etag)
        start = int(asked[6:-1]) if asked and ranges and known == etag else 0
        if start and start >= len(content):
            return refuse(416)(handler)
        body = content[start:]
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        handler.send_header("ETag", etag)
        handler.send_header("Content-Length", str(len(body) if stated is None else stated))
        handler.end_headers()
        handler.wfile.write(body[:stop_after])
        if stall:
            handler.wfile.flush()
            handler.server.hold.wait(5)
        handler.close_connection = True

    return answer


def refuse(status: int, **headers: str) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def endless(handler: Handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(bytes(100_000))


def drops(handler: Handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    while not handler.server.hold.wait(0.05):
        handler.wfile.write(b"x")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    server = Server()
    server.hold = threading.Event()  # lets stalled answers go when the test is over
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.hold.set()
    server.shutdown()
    thread.join()
    server.server_close()


class Heard:
    """Progress that remembers."""

    def __init__(self) -> None:
        self.total, self.done, self.lines = 0, 0, []

    def start(self, label: str, total: int) -> None:
        self.total, self.done = total, 0

    def advance(self, note: str = "") -> None:
        self.done += 1

    def say(self, line: str) -> None:
        self.lines.append(line)


# -- one file from the web ---------------------------------------------------------------------------------------------
def ranges_asked(server: Server) -> list[str]:
    return [headers.get("Range", "") for _, headers in server.asked]


@pytest.mark.parametrize(
    ("answers", "ranges"),
    [
        ([serve()], [""]),
        ([serve(stop_after=100_000), serve()], ["", "bytes=100000-"]),
        ([serve(stop_after=100_000, stall=True), serve()], ["", "bytes=100000-"]),
        ([serve(stop_after=0, stall=True), serve()], ["", ""]),
        ([serve(stop_after=70_000)] * 5 + [serve()], ["", *(f"bytes={70_000 * n}-" for n in range(1, 5))]),
        ([serve(ranges=False, stop_after=100_000), serve(ranges=False)], ["", "bytes=100000-"]),  # from its start
        (
            [serve(bytes(300_000), stop_after=100_000, etag='"old"'), serve(etag='"new"')],
            ["", "bytes=100000-"],
        ),  # If-Range
        ([serve(stop_after=100_000, etag='W/"old"'), serve(bytes(300_000)), serve()], ["", "bytes=100000-", ""]),
        ([serve(stated=400_000)], [""]),  # the hash is right: it is whole
        ([refuse(429, Retry_After="9999"), refuse(500), serve()], ["", "", ""]),
        ([serve(stop_after=9), refuse(503), serve()], ["", "bytes=9-", "bytes=9-"]),
    ],
)
def test_the_file_arrives_in_spite_of_everything(server, tmp_path, answers, ranges):
    server.answers = list(answers)
    start_seconds = time.monotonic()
    path = download(f"{server.url}/file.pth", tmp_path / "new" / "file.pth", SHA256, patience=STEADY)
    assert time.monotonic() - start_seconds < 5  # a server's wish to wait has a bound
    assert path.read_bytes() == CONTENT
    assert ranges_asked(server) == ranges
    assert [entry.name for entry in path.parent.iterdir()] == ["file.pth"]


@pytest.mark.parametrize(("etag", "ranges"), [('"one"', ["", "bytes=100000-"]), ("", ["", ""])])
def test_without_a_known_hash_the_length_decides_and_versions_do_not_mix(server, tmp_path, etag, ranges):
    server.answers = [serve(stop_after=100_000, etag=etag), serve(etag=etag)]
    partial_of(tmp_path / "file").write_bytes(b"of another day")
    download(f"{server.url}/file", tmp_path / "file", None, patience=HASTE)
    assert (tmp_path / "file").read_bytes() == CONTENT and ranges_asked(server) == ranges


def test_another_process_resumes_what_this_one_left(server, tmp_path):
    server.answers = [serve(stop_after=100_000), refuse(404)]
    with pytest.raises(WeightsError, match="404"):
        download(f"{server.url}/file", tmp_path / "file", SHA256, patience=HASTE)
    assert partial_of(tmp_path / "file").stat().st_size == 100_000 and not (tmp_path / "file").exists()
    server.answers = [serve()]
    download(f"{server.url}/file", tmp_path / "file", SHA256, patience=HASTE)
    assert (tmp_path / "file").read_bytes() == CONTENT and ranges_asked(server)[-1] == "bytes=100000-"


@pytest.mark.parametrize("leftover", [CONTENT, bytes(1000), bytes(len(CONTENT)), CONTENT + b"more"])
def test_leftovers_are_used_or_thrown_away(server, tmp_path, leftover):
    partial_of(tmp_path / "file").write_bytes(leftover)
    download(f"{server.url}/file", tmp_path / "file", SHA256, patience=HASTE)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert len(server.asked) == (0 if leftover == CONTENT else 2)


@pytest.mark.parametrize(
    "answer",
    [serve(bytes(300_000)), serve(CONTENT[:-1]), serve(b"<html>log in</html>"), serve(stated=299_999), serve(b"")],
)
def test_another_file_is_an_error_that_names_both_hashes_and_leaves_nothing(server, tmp_path, answer):
    server.answers = [answer]
    with pytest.raises(WeightsError, match=SHA256) as error:
        download(f"{server.url}/file", tmp_path / "file", SHA256, patience=HASTE)
    assert len(re.findall("[0-9a-f]{64}", str(error.value))) == 2
    assert "RVC_HUB" in error.value.hint and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("status", "times"), [(403, 1), (404, 1), (410, 1), (429, 2), (500, 2), (503, 2)])
def test_refusals_are_final_or_tried_again(server, tmp_path, status, times):
    server.answers = [refuse(status)]
    with pytest.raises(WeightsError, match=str(status)) as error:
        download(f"{server.url}/file", tmp_path / "file", SHA256, patience=HASTE)
    assert (
        len(server.asked) == times
        and f"RVC_HUB to a mirror, or put the file at {tmp_path / 'file'}" in error.value.hint
    )
    assert not list(tmp_path.iterdir())  # an empty .partial would count as begun


def test_a_server_that_only_stalls_is_given_up(server, tmp_path):
    server.answers = [serve(stop_after=0, stall=True)]
    with pytest.raises(WeightsError, match="nothing came for"):
        download(f"{server.url}/file", tmp_path / "file", SHA256, patience=HASTE)


def test_a_server_that_always_breaks_off_at_the_same_place_is_given_up(server, tmp_path):
    server.answers = [serve(ranges=False, stop_after=100_000)]
    with pytest.raises(WeightsError, match="ended early"):
        download(f"{server.url}/file", tmp_path / "file", SHA256, patience=HASTE)
    assert len(server.asked) == 2


def test_nobody_there(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(WeightsError, match="the connection failed"):
            download(f"http://127.0.0.1:{closed.getsockname()[1]}/file", tmp_path / "file", SHA256, patience=HASTE)


def test_redirects_are_followed_on_the_web_only(server, tmp_path):
    server.answers = [refuse(302, Location="/else%20where"), refuse(307, Location=f"{server.url}/there"), serve()]
    download(f"{server.url}/file", tmp_path / "file", SHA256, patience=HASTE)
    assert [path for path, _ in server.asked] == ["/file", "/else%20where", "/there"]
    for away in ("ftp://127.0.0.1/file", "file:///etc/passwd", "data:,x"):
        server.answers = [refuse(302, Location=away)]
        with pytest.raises(WeightsError, match="not a web address|302"):
            download(f"{server.url}/file", tmp_path / "other", SHA256, patience=HASTE)
        with pytest.raises(WeightsError, match="not a web address"):
            download(away, tmp_path / "other", SHA256, patience=HASTE)
    server.answers, server.asked = [refuse(302, Location="/file")], []
    with pytest.raises(WeightsError, match="302"):
        download(f"{server.url}/file", tmp_path / "other", SHA256, patience=HASTE)
    assert len(server.asked) < 20 and not (tmp_path / "other").exists()


def test_an_endless_answer_does_not_fill_the_disk(server, tmp_path, monkeypatch):
    monkeypatch.setattr("rvc_core.system.download._LARGEST_BYTES", 1_000_000)
    server.answers = [endless]
    with pytest.raises(WeightsError, match="is larger than"):
        download(f"{server.url}/file", tmp_path / "file", SHA256, patience=HASTE)
    assert not list(tmp_path.iterdir())


def test_a_length_beyond_the_disk_is_refused_before_it_is_written(server, tmp_path):
    server.answers = [serve(stated=10**15)]
    with pytest.raises(ResourceError, match="not enough room"):
        download(f"{server.url}/file", tmp_path / "file", SHA256, patience=HASTE)


def test_a_server_that_sends_drops_is_given_up(server, tmp_path):
    server.answers = [drops]
    with pytest.raises(WeightsError, match="next to nothing"):
        download(f"{server.url}/file", tmp_path / "file", SHA256, patience=HASTE)


def test_two_writers_do_not_mix(server, tmp_path):
    with partial_of(tmp_path / "file").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(WeightsError, match="another process"):
            download(f"{server.url}/file", tmp_path / "file", SHA256, patience=HASTE)


def test_progress_ends_at_its_total_and_failures_are_told(server, tmp_path):
    content, heard = CONTENT * 10, Heard()
    server.answers = [serve(content, stop_after=1_500_000), serve(content)]
    download(f"{server.url}/file", tmp_path / "file", hashlib.sha256(content).hexdigest(), heard, HASTE)
    assert heard.done == heard.total == 2 and len(heard.lines) == 1 and "ended early" in heard.lines[0]


# -- the registry ------------------------------------------------------------------------------------------------------
@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("RVC_HOME", str(tmp_path / "root"))
    return tmp_path / "root"


@pytest.fixture
def three_files(monkeypatch):
    """Three small files under the names of real ones."""
    made = {
        name: registry.Asset(name, hub_path, SHA256, len(CONTENT), "MIT")
        for name, hub_path in (
            ("pretrained_v2/f0G40k.pth", "pretrained_v2/f0G40k.pth"),
            ("rmvpe/rmvpe.pt", "rmvpe.pt"),
            ("hubert_base/config.json", "hubert_base/config.json"),
        )
    }
    monkeypatch.setattr(registry, "assets", lambda: made)
    return made


def put(home: Path, name: str, content: bytes = CONTENT) -> Path:
    path = home / "assets" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_the_registry_has_every_file_once():
    made = registry.assets()
    bases = {
        f"{folder}/{f0}{net}{rate}k.pth"
        for folder in ("pretrained", "pretrained_v2")
        for f0 in ("", "f0")
        for net in "GD"
        for rate in (32, 40, 48)
    }
    assert len(bases) == 24 and bases <= set(made)
    assert {
        "hubert_base/config.json",
        "hubert_base/preprocessor_config.json",
        "hubert_base/pytorch_model.bin",
        "rmvpe/rmvpe.pt",
        "hubert/hubert_base.pt",
    } <= set(made)
    assert len({asset.sha256 for asset in made.values()}) == len({asset.url for asset in made.values()}) == len(made)
    assert all(len(bytes.fromhex(asset.sha256)) == 32 for asset in made.values())
    assert {asset.licence for asset in made.values()} == {"MIT", "unknown"}
    assert made["rmvpe/rmvpe.pt"].url == "https://huggingface.co/lj1995/VoiceConversionWebUI/resolve/main/rmvpe.pt"
    for name in ("v1-32k", "v1-40k", "v1-48k", "v2-32k", "v2-40k", "v2-48k"):
        assert len(registry.choose([name])) == 6, name


def test_names_files_folders_and_presets():
    assert [asset.name for asset in registry.choose(["rmvpe.pt", "rmvpe/rmvpe.pt"])] == ["rmvpe/rmvpe.pt"]
    assert len(registry.choose(["hubert_base"])) == 3 and len(registry.choose(["pretrained_v2"])) == 12
    for nothing in ("f0G40k.pth", "nano", "hubert", "pretrained_v", "", "../rmvpe.pt"):
        if nothing == "hubert":
            assert [asset.name for asset in registry.choose([nothing])] == ["hubert/hubert_base.pt"]
            continue
        with pytest.raises(SettingsError, match="pretrained/f0G40k.pth, pret" if "f0" in nothing else "no file"):
            registry.choose([nothing])


def test_what_is_missing_says_where_to_get_it_and_where_to_put_it(home):
    with pytest.raises(WeightsError, match="f0G40k.pth of v2 40k is not at") as error:
        registry.base_files(preset("v2-40k"), "auto", "auto")
    assert str(home / "assets" / "pretrained_v2" / "f0G40k.pth") in str(error.value)
    assert "rvc weights fetch pretrained_v2/f0G40k.pth" in error.value.hint and "put it there" in error.value.hint
    with pytest.raises(WeightsError, match="ContentVec") as error:
        content_identity("contentvec", 768)
    assert "rvc weights fetch hubert_base" in error.value.hint


@pytest.mark.parametrize("folder", ["assets", "weights"])
def test_base_models_are_found_in_both_places(home, folder):
    for name in registry.base_names(preset("v2-40k")):
        (home / folder / name).parent.mkdir(parents=True, exist_ok=True)
        (home / folder / name).touch()
    found = registry.base_files(preset("v2-40k"), "auto", "auto")
    assert [path.name for path in found] == ["f0G40k.pth", "f0D40k.pth"] and found[0].is_relative_to(home / folder)


def test_fetch_list_and_verify(server, home, three_files, monkeypatch, capsys):
    def result(*arguments: str) -> tuple[int, dict]:
        status = main(["weights", *arguments, "--json", "--quiet"])
        return status, json.loads(capsys.readouterr().out.splitlines()[-1])

    monkeypatch.setenv("RVC_HUB", f"{server.url}/mirror/")
    status, listed = result("list")
    assert status == 0 and [row["state"] for row in listed["weights"]] == ["missing"] * 3
    status, fetched = result("fetch", "rmvpe", "f0G40k.pth")
    assert status == 0
    assert [path for path, _ in server.asked] == ["/mirror/rmvpe.pt", "/mirror/pretrained_v2/f0G40k.pth"]
    assert [row["path"] for row in fetched["weights"]] == [
        str(home / "assets" / "rmvpe" / "rmvpe.pt"),
        str(home / "assets" / "pretrained_v2" / "f0G40k.pth"),
    ]
    assert all(row["sha256"] == SHA256 and row["state"] == "verified" for row in fetched["weights"])
    assert result("fetch", "rmvpe")[0] == 0 and len(server.asked) == 2  # there: not fetched again
    put(home, "hubert_base/config.json.partial", b"x")
    assert [row["state"] for row in result("list")[1]["weights"]] == ["there", "there", "partial"]
    assert result("verify")[0] == 0
    broken = put(home, "rmvpe/rmvpe.pt", b"something else")
    status, verified = result("verify")
    assert status == 1 and "rmvpe/rmvpe.pt" in verified["error"] and verified["weights"][1]["state"] == "damaged"
    status, failed = result("fetch", "rmvpe")
    assert status == 1 and SHA256 in failed["error"] and broken.read_bytes() == b"something else"  # perhaps his own
    assert result("verify", "hubert_base")[0] == 1  # named and not there
    assert main(["weights", "list"]) == 0 and "rmvpe/rmvpe.pt" in capsys.readouterr().out


# -- the bundle --------------------------------------------------------------------------------------------------------
@pytest.fixture
def made(home, three_files, tmp_path, monkeypatch) -> Path:
    """A bundle with one file of weights and a small wheel, and a home without them."""

    def collect(source: Path, folder: Path, *rest: object) -> list[Path]:
        (folder / "own-1.0-py3-none-any.whl").write_bytes(b"a wheel")
        return [folder / "own-1.0-py3-none-any.whl"]

    monkeypatch.setattr(bundle, "_collect", collect)
    put(home, "rmvpe/rmvpe.pt")
    report = make_bundle("here", tmp_path / "bundle.zip")
    assert report["weights"] == ["rmvpe/rmvpe.pt"] and report["wheels"] == 1 and "needs torch" in report["torch"]
    shutil.rmtree(home)
    return tmp_path / "bundle.zip"


@pytest.mark.parametrize("unpacked", [False, True])
def test_what_was_bundled_is_put_where_it_is_looked_for(made, home, tmp_path, unpacked):
    if unpacked:  # as Kaggle does with uploads
        zipfile.ZipFile(made).extractall(tmp_path / "folder")
    [placed] = unpack(tmp_path / "folder" if unpacked else made, tmp_path / "wheels")
    assert placed == registry.find("rmvpe/rmvpe.pt") and placed.read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "wheels").iterdir()] == ["own-1.0-py3-none-any.whl"]
    placed.write_bytes(b"the user's own")
    with pytest.raises(WeightsError, match=SHA256):
        unpack(made, tmp_path / "wheels")
    assert placed.read_bytes() == b"the user's own"


def rewritten(bundle_file: Path, change: Callable[[dict], None] = lambda manifest: None, **contents: bytes) -> Path:
    """The bundle again, its manifest or the contents of files changed."""
    with zipfile.ZipFile(bundle_file) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    manifest = json.loads(parts["manifest.json"])
    change(manifest)
    parts |= {"manifest.json": json.dumps(manifest).encode(), **contents}
    with zipfile.ZipFile(bundle_file, "w", zipfile.ZIP_DEFLATED) as new:
        for name, content in parts.items():
            new.writestr(name, content)
    return bundle_file


def entry_of(content: bytes) -> dict:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@pytest.mark.parametrize(
    ("change", "contents", "error", "words"),
    [
        (lambda m: None, {"wheels/own-1.0-py3-none-any.whl": b"b wheel"}, WeightsError, "has the sha256"),
        (lambda m: None, {"weights/rmvpe/rmvpe.pt": bytes(50_000_000)}, WeightsError, f"not {SHA256}"),  # a small bomb
        (lambda m: m["files"].update({"wheels/gone.whl": entry_of(b"")}), {}, WeightsError, "is missing"),
        (lambda m: m["files"].update({"weights/../../evil": entry_of(b"x")}), {}, UnsafeFileError, "evil"),
        (lambda m: m["files"].update({"/etc/evil": entry_of(b"x")}), {}, UnsafeFileError, "evil"),
        (lambda m: m["files"].update({"weights/evil.pth": entry_of(b"x")}), {}, UnsafeFileError, "not the known one"),
        (lambda m: m["files"].update({"weights/rmvpe/rmvpe.pt": entry_of(b"x")}), {}, UnsafeFileError, "not the known"),
        (lambda m: m.update(python="3.9"), {}, ResourceError, "for Python 3.9"),
        (lambda m: m.update(machine="vax"), {}, ResourceError, "on vax"),
        (lambda m: m.update(format=2), {}, WeightsError, "another kind"),
        (lambda m: m.pop("files"), {}, WeightsError, "not a bundle"),
        (lambda m: None, {"manifest.json": b"[]"}, WeightsError, "not a bundle"),
        (lambda m: m["files"]["wheels/own-1.0-py3-none-any.whl"].update(bytes="7"), {}, WeightsError, "another kind"),
    ],
)
def test_a_bundle_that_is_not_ours_is_refused(made, home, tmp_path, change, contents, error, words):
    with pytest.raises(error, match=words) as raised:
        unpack(rewritten(made, change, **contents), tmp_path / "wheels")
    assert raised.value.hint and not list(home.rglob("*.pth"))
    assert (
        not (home / "assets" / "rmvpe" / "rmvpe.pt").exists()
        or registry.state_of(registry.assets()["rmvpe/rmvpe.pt"], verify=True) == "verified"
    )


def test_no_more_is_read_than_the_manifest_states():
    stream = io.BytesIO(bytes(10_000_000))
    stream.close = lambda: None
    with pytest.raises(WeightsError, match="has the sha256"):
        archive.verified(lambda name: stream, "wheels/bomb.whl", entry_of(b"x"), None)
    assert stream.tell() == 2


@pytest.mark.parametrize("cut", [0, 100, 0.5, 0.999])
def test_a_torn_archive_is_refused(made, tmp_path, cut):
    whole = made.read_bytes()
    made.write_bytes(whole[: int(cut if cut > 1 or cut == 0 else cut * len(whole))])
    with pytest.raises(WeightsError, match="no whole archive"):
        unpack(made, tmp_path / "wheels")
    with pytest.raises(WeightsError, match="no bundle"):
        unpack(tmp_path / "nowhere.zip", tmp_path / "wheels")


def test_a_flipped_bit_is_found(made, tmp_path):
    content = bytearray(made.read_bytes())
    content[content.index(CONTENT[:50])] ^= 1
    made.write_bytes(content)
    with pytest.raises(WeightsError):
        unpack(made, tmp_path / "wheels")


def test_wanted_weights_that_are_missing_or_damaged_are_told_before_any_work(home, three_files, tmp_path, capsys):
    with pytest.raises(WeightsError) as error:
        make_bundle("kaggle", tmp_path / "b.zip", ["rmvpe"])
    assert "rvc weights fetch rmvpe/rmvpe.pt" in error.value.hint
    put(home, "rmvpe/rmvpe.pt", b"damaged")
    with pytest.raises(WeightsError, match=SHA256):
        make_bundle("kaggle", tmp_path / "b.zip")
    with pytest.raises(SettingsError, match="brings its own torch"):
        make_bundle("colab", tmp_path / "b.zip", with_torch=True)
    assert not (tmp_path / "b.zip").exists()
    with pytest.raises(SystemExit):
        main(["weights", "bundle", "--for", "mars"])


def test_a_tool_that_fails_says_why_and_what_a_bundle_needs(tmp_path, monkeypatch):
    with pytest.raises(ResourceError, match="no_such_tool pip failed: .*No module named no_such_tool") as error:
        bundle._run("no_such_tool", "pip")
    assert "pip install uv" in error.value.hint
    (tmp_path / "uv.py").write_text(
        "import os, sys; sys.exit(os.environ['UV_INDEX_URL'] + os.environ['UV_FIND_LINKS'])"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", "http://mirror")
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels")
    monkeypatch.setenv("UV_FIND_LINKS", "/own")  # what somebody tells uv himself counts
    with pytest.raises(ResourceError, match="uv pip failed: http://mirror/own"):
        bundle._run("uv", "pip")


def test_the_script_and_the_bundle_install_the_same():
    script = (ROOT / "setup_env.sh").read_text("utf-8")
    assert f'extras_base="{bundle.EXTRAS}"' in script
    assert all(f'"{requirement}"' in script for requirement in bundle.WITHOUT_DEPENDENCIES)
    assert bundle._BUILD_BACKEND in (ROOT / "pyproject.toml").read_text("utf-8")
    assert all({"torch", "torchaudio"} <= set(target.brings) for target in bundle.TARGETS.values())


def test_the_script_unpacks_with_a_bare_python_and_never_asks_the_network(made, home, tmp_path):
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    bare.chmod(0o755)
    rewritten(made, lambda m: m["files"].pop("weights/rmvpe/rmvpe.pt"))  # not in the true registry

    def bash(code: str) -> subprocess.CompletedProcess:
        start = f'source "{ROOT / "setup_env.sh"}"; bundle="{made}"; python="{bare}"; '
        return subprocess.run(["bash", "-c", start + code], capture_output=True, text=True)

    done = bash('open_bundle; ls "$wheels"; choose_torch')
    assert "the bundle is whole; weights: none" in done.stdout and "own-1.0-py3-none-any.whl" in done.stdout
    assert "torch is not here and the bundle leaves it out" in done.stderr and done.returncode == 1
    made.write_bytes(made.read_bytes()[:-30])
    done = bash("open_bundle; echo going on")
    assert done.returncode == 1 and "going on" not in done.stdout and "no whole archive" in done.stderr
    done = bash("main --offline /nowhere.zip")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "--offline needs a bundle" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(subprocess.run([*ALONE, "true"], check=False).returncode != 0, reason="no network namespaces here")
def test_a_bundle_sets_up_and_runs_the_demo_without_a_network(tmp_path):
    """The bundle is made with a network; then there is none, no package, and nothing that pip remembers."""
    made = make_bundle("here", tmp_path / "bundle.zip", [], with_torch=True)
    with zipfile.ZipFile(made["path"]) as archive:
        archive.extractall(tmp_path / "as Kaggle unpacks it")
    subprocess.run(["git", "clone", "-q", str(ROOT), str(tmp_path / "a clone")], check=True)
    foreign = ("PIP_", "RVC_", "PYTHON", "CONDA")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    clean |= {"PIP_CONFIG_FILE": "/dev/null", "PIP_CACHE_DIR": str(tmp_path / "cache"), "RVC_PYTHON": sys.executable}

    def offline(folder: str, bundle_file: str, *arguments: str) -> subprocess.CompletedProcess:
        done = subprocess.run(
            [*ALONE, "bash", "setup_env.sh", "--offline", bundle_file, *arguments],
            cwd=tmp_path / folder,
            env=clean,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    offline("as Kaggle unpacks it", ".")  # no clone: rvc_core itself comes from its wheel
    rvc = tmp_path / "as Kaggle unpacks it" / ".venv" / "bin" / "rvc"
    assert subprocess.run([rvc, "check", "--json"], cwd=tmp_path, env=clean, check=False).returncode == 0
    done = offline("a clone", made["path"], "demo", "--json", "--quiet")
    assert json.loads(done.stdout.splitlines()[-1])["passed"]


@pytest.mark.parametrize(
    "code, attempts, word",
    [
        (socket.EAI_NONAME, 1, "there is no server nowhere.example"),
        (socket.EAI_AGAIN, 2, "connection failed"),  # no network yet, or a name server that is busy
        (socket.EAI_FAIL, 2, "connection failed"),
    ],
)
def test_a_name_without_a_server_fails_at_once_and_a_busy_name_server_is_asked_again(
    code: int, attempts: int, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def resolve(*_: object, **__: object) -> list[object]:
        asked.append(1)
        raise socket.gaierror(code, "as the system says it")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    with pytest.raises(WeightsError, match=word) as caught:
        download("https://nowhere.example/a.pth", tmp_path / "a.pth", None, patience=HASTE)
    assert len(asked) == attempts and caught.value.hint and not [*tmp_path.iterdir()]

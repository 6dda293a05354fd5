"""The RoFormers: the same numbers as another implementation, the real checkpoints' keys and sizes, fetched and used."""

import functools
import hashlib
import json
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch

from rvc_core.assets import registry
from rvc_core.cli import main
from rvc_core.errors import MismatchError, RVCError, WeightsError
from rvc_core.nn.roformer import Norm, Roformer, RoformerShape, Rotary
from rvc_core.separation import roformer
from rvc_core.separation.models import chosen
from rvc_core.separation.separate import separate

SMALL = {bands: RoformerShape(bands, 16, 1, heads=2, head_width=8) for bands in ("split", "mel")}
EP_368 = registry.SEPARATION["vocals"][0]


def random_state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        key: value if key.endswith("embed.freqs") else 0.2 * torch.randn_like(value) + key.endswith("gamma")
        for key, value in network.state_dict().items()
    }


@pytest.mark.parametrize("bands", ["split", "mel"])
def test_the_numbers_are_those_of_pymss_core(bands):
    theirs = pytest.importorskip("pymss_core.modules.bs_roformer")
    shape = replace(SMALL[bands], depth=2)
    options = {"dim": 16, "depth": 2, "heads": 2, "dim_head": 8, "stereo": True, "stft_hop_length": 441}
    options |= {"time_transformer_depth": 1, "freq_transformer_depth": 1, "mask_estimator_depth": 2}
    kind = theirs.BSRoformer if bands == "split" else theirs.MelBandRoformer
    reference = kind(**options, **({"mlp_hidden_layers": 2, "num_bands": 60} if bands == "mel" else {})).eval()
    reference.load_state_dict(state := random_state(reference))
    ours = Roformer(shape).eval()
    ours.load_state_dict(state)
    mix = 0.1 * torch.randn(2, 2, 22_050)
    with torch.inference_mode():
        assert torch.allclose(ours(mix), reference(mix), atol=1e-6)


@pytest.mark.parametrize(("name", "bands"), [(name, "split") for name in registry.SEPARATION["vocals"]] + [("", "mel")])
def test_the_real_shapes_have_the_sizes_of_the_published_files(name, bands):
    name = name or registry.SEPARATION["lead"][0]
    shape = roformer.SHAPES[name]
    counts = [4 * len(band) for band in shape.bins_of_bands]
    width, inner = shape.width, shape.heads * shape.head_width
    layer = width + 3 * width * inner + 8 * (width + 1) + inner * width  # attention
    layer += width + 8 * width * width + 5 * width + (width if bands == "mel" else 0)  # feed-forward, and a last norm
    hidden = 4 * width * (width + 1) + (4 * width * (4 * width + 1) if bands == "mel" else 0)
    split = sum(count + (count + 1) * width for count in counts)
    masks = sum(hidden + (4 * width + 1) * 2 * count for count in counts)
    total = 2 * (2 * shape.depth * (layer + 32) + split + masks + (width if bands == "split" else 0))  # two bytes each
    assert shape.bands == bands and 0 <= registry.assets()[name].size_bytes - total < 400_000


def test_bands_cover_all_bins():
    assert torch.equal(torch.cat(SMALL["split"].bins_of_bands), torch.arange(1025))
    assert set(torch.cat(SMALL["mel"].bins_of_bands).tolist()) == set(range(1025))


def test_half_precision_keeps_norms_and_angles():
    """Angles of 800 frames are off by up to a quarter in float16, and squares of large values overflow."""
    vectors = torch.randn(1, 2, 801, 8)
    rotary = Rotary(8)
    assert torch.allclose(rotary(vectors.half()).float(), rotary(vectors), atol=4e-3)
    large = 1000 * torch.randn(4, 64)
    assert torch.allclose(Norm(64)(large.half()), Norm(64)(large), atol=0.01)
    network = Roformer(SMALL["mel"]).eval()
    mix = 0.1 * torch.randn(1, 2, 44_100)
    with torch.inference_mode():
        whole = network(mix)
        with torch.autocast("cpu", torch.bfloat16):
            half = network(mix)
    assert half.dtype == torch.float32 and (half - whole).norm() < 0.02 * whole.norm()


@pytest.fixture
def published(monkeypatch, tmp_path):
    """Small networks with random weights in the place of the real ones, on a server of our own."""
    folder = tmp_path / "hub"
    (folder / "pymss_weights").mkdir(parents=True)
    known = dict(registry.assets())
    for kind, names in registry.SEPARATION.items():
        shape = SMALL["split" if kind == "vocals" else "mel"]
        torch.save({"state_dict": random_state(Roformer(shape))}, path := folder / names[0])
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        known[names[0]] = replace(known[names[0]], sha256=sha256, size_bytes=path.stat().st_size)
        monkeypatch.setitem(roformer.SHAPES, names[0], shape)
    monkeypatch.setattr(registry, "assets", lambda: known)
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    monkeypatch.setenv("RVC_HUB", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("RVC_HOME", str(tmp_path / "home"))
    yield folder
    server.shutdown()
    server.server_close()


def test_fetched_models_are_taken_and_named(published, capsys):
    assert chosen("vocals").name == "embedded"
    assert main(["weights", "fetch", "vocals", "lead", "--json"]) == 0
    told = capsys.readouterr()
    assert "its authors state no licence" in told.err
    rows = json.loads(told.out.splitlines()[-1])["weights"]
    assert [(row["state"], row["licence"]) for row in rows] == [("verified", "unknown")] * 2
    mix = 0.1 * np.random.default_rng(0).standard_normal((1, 24_000)).astype(np.float32)
    stems = separate(mix, 48_000, ["vocals", "lead"])
    assert stems.models == {"vocals": EP_368.split("/")[1], "lead": registry.SEPARATION["lead"][0].split("/")[1]}
    made = stems.samples
    assert np.abs(made["vocals"] + made["instrumental"] - mix).max() < 1e-6 < np.abs(made["vocals"]).max()
    assert np.abs(made["lead"] + made["backing"] - made["vocals"]).max() < 1e-6


def test_a_file_with_another_hash_or_content_is_refused(published, monkeypatch):
    assert main(["weights", "fetch", "vocals", "--quiet"]) == 0
    path = registry.find(EP_368)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"!")
    with pytest.raises(WeightsError, match="has the sha256"):
        separate(np.zeros((1, 800), np.float32), 44_100)
    path.write_bytes(whole)
    monkeypatch.setitem(roformer.SHAPES, EP_368, SMALL["mel"])
    with pytest.raises(MismatchError, match="does not fit"):
        separate(np.zeros((1, 800), np.float32), 44_100)
    for content in ({"state_dict": {"a": 3}}, [1]):
        torch.save(content, path)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        monkeypatch.setitem(registry.assets(), EP_368, replace(registry.assets()[EP_368], sha256=sha256))
        with pytest.raises(RVCError, match="damaged"):
            separate(np.zeros((1, 800), np.float32), 44_100)


_REAL = """
import hashlib, resource, sys, time
from dataclasses import replace
from pathlib import Path
import numpy as np, torch
from rvc_core.assets import registry
from rvc_core.nn.roformer import Roformer
from rvc_core.separation import roformer
from rvc_core.separation.chunks import Chunks
name, path = sys.argv[1], Path(sys.argv[2])
if not path.exists():
    torch.save({"state_dict": Roformer(roformer.SHAPES[name]).half().state_dict()}, path)
    sys.exit()
asset = replace(registry.assets()[name], sha256=hashlib.sha256(path.read_bytes()).hexdigest())
registry.assets, registry.find = (lambda: {name: asset}), (lambda _: path)
separator, began = roformer.RoformerSeparator(name), time.monotonic()
mix = 0.1 * np.random.default_rng(0).standard_normal((2, 10 * 44_100)).astype(np.float32)
made = np.concatenate(list(Chunks(separator, 44_100, 0.25)([mix])), axis=1)
assert made.shape == mix.shape and np.isfinite(made).all() and made.std() > 0
print(time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "most_gb"), [("lead", 6.0), ("vocals", 8.0)])
def test_the_real_shapes_separate_ten_seconds_in_bounded_memory(kind, most_gb, tmp_path):
    """Plumbing and memory only: random weights separate nothing."""
    words = [sys.executable, "-c", _REAL, registry.SEPARATION[kind][0], str(tmp_path / "weights.ckpt")]
    for _ in range(2):  # written by a process of its own, whose memory does not count
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    seconds, gigabytes = map(float, done.stdout.split())
    print(f"{kind}: {seconds:.0f} s for 10 s, {gigabytes:.2f} GB")
    assert gigabytes < most_gb

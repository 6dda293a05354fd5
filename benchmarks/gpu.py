"""What only a real GPU can prove: sections, each named and of at most 90 seconds, whose results go into one file.

    bash benchmarks/gpu.sh --output gpu.json                       # all; on a machine without a network, see there
    python benchmarks/gpu.py formats pairs --reference DIR         # some; DIR is a checkout of RVC WebUI
    python benchmarks/gpu.py --device cpu --preset nano equal      # a dry run

`failed` lists what did not hold; the exit status says whether it is empty. A section that raises is noted, and the
others go on. One GPU cannot prove two NCCL ranks, which NCCL refuses on one card.
"""

import argparse
import copy
import json
import os
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import torch
from measured import AfterSteps, Bench, apart, kernels, kernels_by_time, no_waiting, timed_steps
from reference_trainer import ReferenceTrainer

from rvc_core.embedded import voice_folder
from rvc_core.experiment import Experiment
from rvc_core.features.content import content_encoder
from rvc_core.features.pitch import pitch_estimator
from rvc_core.nn.spectrogram import mel_spectrogram
from rvc_core.presets import preset
from rvc_core.settings import (
    ConvertSettings,
    ExtractSettings,
    PrepareSettings,
    RuntimeSettings,
    SeparateSettings,
    TrainSettings,
)
from rvc_core.system.installation import check
from rvc_core.system.memory import release
from rvc_core.training import precision
from rvc_core.training.distributed import ALONE, Ranks
from rvc_core.training.graphs import StepGraphs
from rvc_core.training.memory import Portions
from rvc_core.training.preflight import noisy_clip, preflight
from rvc_core.training.start import measured_batch_size
from rvc_core.training.step import train_step
from rvc_core.workspace.metrics import history

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


# -- sections ----------------------------------------------------------------------------------------------------------
def environment(bench: Bench) -> dict[str, Any]:
    """The card and the software."""
    found = check()
    report = {"torch": torch.__version__, "python": sys.version.split()[0], "device": found["device"]}
    if bench.on_gpu:
        report |= {
            "gpu": torch.cuda.get_device_name(),
            "capability": torch.cuda.get_device_capability(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return report


def equal(bench: Bench) -> dict[str, Any]:
    """A float32 step of nano has the CPU's losses; a recorded step is an eager one, as nearly as two eager ones."""
    spec, values = preset("nano"), []
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    for device in (torch.device("cpu"), bench.device):
        networks, batch = bench.networks(torch.float32, spec, device), bench.batch(2, spec, device)
        values.append(train_step(networks, batch).values())
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn
    to_cpu = apart(*values)
    bench.hold("a float32 step has the CPU's losses", to_cpu < 5e-3)

    def five(recorded: bool) -> dict[str, float]:
        networks, batch = bench.networks(torch.float32), bench.batch(2)
        graphs = bench.graphs(networks, 2)
        if not recorded:
            graphs.clear()
        return [graphs.step(batch).values() for _ in range(5)][-1]

    eager, again, recorded = five(False), five(False), five(True)
    twice, ours = apart(eager, again), apart(eager, recorded)
    bench.hold("a recorded step differs from an eager one by no more than two eager ones", ours <= 2 * twice + 1e-3)
    return {"to_the_cpu": to_cpu, "two_eager_apart": twice, "recorded_and_eager_apart": ours}


def estimators(bench: Bench) -> dict[str, Any]:
    """Pitch and content here are those of the CPU."""
    from rvc_core.audio.waveform import read_audio

    sound = read_audio(sorted(voice_folder("source").glob("*.flac"))[0], 16000).samples[:48000]
    work: dict[str, Callable[[str], Any]] = {
        "fcpe": lambda device: pitch_estimator("fcpe", device)(sound).f0_hz,
        "embedded": lambda device: content_encoder("embedded", 256, device)(sound),
    }
    found = {}
    for name, estimate in work.items():
        ours, theirs = estimate(str(bench.device)), estimate("cpu")
        found[name] = round(float(abs(ours - theirs).mean() / (abs(theirs).mean() + 1e-9)), 6)
        bench.hold(f"{name} is as on the CPU", found[name] < 0.02)
    return found


def formats(bench: Bench) -> dict[str, Any]:
    """Half precision beside float32, with random weights; what ``--precision auto`` chooses."""
    networks, clip = bench.networks(torch.float32), noisy_clip(bench.spec, 200).to(bench.device)
    found: dict[str, Any] = {}
    for name in ("fp16", "bf16"):
        difference = precision.compare(DTYPES[name], networks, clip)
        found[name] = {**difference._asdict(), "wrong": difference.wrong}
    found["auto"] = precision.choose_precision("auto", networks, clip).name
    bench.hold("half precision is chosen", found["auto"] != "fp32" or not bench.on_gpu)
    return found


def waiting(bench: Bench) -> dict[str, Any]:
    """No operation inside a step makes the processor wait; how many kernels it has, and how long the card is idle."""
    found = {}
    for name in ("fp16", "bf16", "fp32") if bench.on_gpu else ("fp32",):
        networks, batch = bench.networks(DTYPES[name]), bench.batch(4)
        for _ in range(3):
            train_step(networks, batch).values()
        with no_waiting(bench):
            result = train_step(networks, batch)
        result.values()
        eager = bench.seconds(lambda n=networks, b=batch: train_step(n, b).values(), 3)
        graphs = bench.graphs(networks, 4)
        for _ in range(3):
            graphs.step(batch)
        with no_waiting(bench):
            result = graphs.step(batch)
        result.values()
        recorded = bench.seconds(lambda g=graphs, b=batch: g.step(b).values(), 10)
        seen, busy = kernels(bench, lambda g=graphs, b=batch: g.step(b).values())
        found[name] = {
            "eager_s": round(eager, 4),
            "recorded_s": round(recorded, 4),
            "kernels": len(seen),
            "busy_s": round(busy, 4),
            "longest": kernels_by_time(seen)[:12],
        }
        bench.hold(f"steps in {name} are recorded", bool(graphs.recorded) or not bench.on_gpu)
        del networks, batch, graphs, result
        release()
    return found


def pairs(bench: Bench) -> dict[str, Any]:
    """Our step and RVC WebUI's, in turn on the same batch; what each holds at most, its weights included."""
    if bench.reference is None:
        return {"skipped": "no --reference"}
    found = {}
    for name, clips in (("fp16", 4), ("fp16", 8), ("fp16", 16), ("bf16", 4), ("bf16", 16), ("fp32", 4)):
        dtype, batch = DTYPES[name], bench.batch(clips)
        release()
        networks = bench.networks(dtype)
        graphs = bench.graphs(networks, clips)
        ours, peak = timed_steps(bench, lambda g=graphs, b=batch: g.step(b).values())
        reference = ReferenceTrainer(bench.reference, bench.spec, networks, dtype)
        del graphs, networks
        release()
        theirs, their_peak = timed_steps(bench, lambda r=reference, b=batch: r.step(b))
        del reference
        found[f"{name} batch {clips}"] = {
            "ratio": round(theirs / ours, 3),
            "ours_s": round(ours, 4),
            "reference_s": round(theirs, 4),
            "ours_gb": round(peak / 1e9, 3),
            "reference_gb": round(their_peak / 1e9, 3),
        }
    return found


def scarcity(bench: Bench) -> dict[str, Any]:
    """Under a cap that 8 clips do not fit into, portions make the same step; ``auto`` finds a batch below another."""
    if not bench.on_gpu:
        return {"skipped": "needs a GPU"}
    whole, losses, clips = torch.cuda.get_device_properties(bench.device).total_memory, [], 8
    for capped in (False, True):
        networks, batch, portions = bench.networks(torch.float32), bench.batch(8), Portions(8)
        release()
        if capped:
            torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + 2.0e9) / whole)
        losses.append(train_step(networks, batch, portions=portions).values())
        clips = portions.clips
        del networks, batch
        release()
    difference = apart(*losses)
    torch.cuda.set_per_process_memory_fraction(4.5e9 / whole)
    found = measured_batch_size(
        bench.spec, [noisy_clip(bench.spec)] * 16, TrainSettings(precision="fp32"), bench.device
    )
    torch.cuda.set_per_process_memory_fraction(1.0)
    bench.hold("memory that runs out makes fewer clips pass", clips < 8)
    bench.hold("portions make the same step", difference < 0.02)
    bench.hold("auto finds a batch under a cap", 1 <= found < 16)
    return {"portion": clips, "apart": difference, "auto_batch_in_4.5_gb": found}


def nccl(bench: Bench) -> dict[str, Any]:
    """One process that says it is two sums through NCCL, recorded and not: the path of several, without their wires."""
    if not bench.on_gpu:
        return {"skipped": "needs a GPU"}
    import torch.distributed as distributed

    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29577"}
    distributed.init_process_group("cpu:gloo,cuda:nccl", rank=0, world_size=1)
    values = []
    for ranks in (ALONE, Ranks(0, 2)):
        networks, batch = bench.networks(torch.bfloat16), bench.batch(2)
        graphs = StepGraphs(networks, ranks=ranks, portions=Portions(2))
        values.append([graphs.step(batch).values() for _ in range(5)][-1])
    distributed.destroy_process_group()
    bench.hold("sums through NCCL change nothing", (difference := apart(*values)) < 2e-2)
    return {"apart": difference}


def journey(bench: Bench) -> dict[str, Any]:
    """Nano, from recordings to a conversion, here and on the CPU."""
    lab = Experiment.open("nano", str(voice_folder("target")), runtime=bench.runtime)
    lab.prepare(PrepareSettings(preset="nano", holdout_minutes=0.2))
    lab.extract(ExtractSettings())
    minutes = 0.6 if bench.on_gpu else 0.2
    report = lab.train(TrainSettings(epochs=1000, max_minutes=minutes, batch_size="auto" if bench.on_gpu else 8))
    source, mels = sorted(voice_folder("source").glob("*.flac"))[0], []
    for device in (str(bench.device), "cpu"):
        voice = Experiment.open("nano", runtime=RuntimeSettings(device=device)).voice("final")
        made = voice.convert(source, ConvertSettings(f0_method="fcpe"))
        mels.append(mel_spectrogram(torch.from_numpy(made.audio.samples)[None], preset("nano")))
    first, last = report.heldout_mel_first, report.heldout_mel_last
    difference = float((mels[0] - mels[1]).abs().mean())
    bench.hold("unheard speech comes nearer", bool(first and last and (last < 0.9 * first or not bench.on_gpu)))
    bench.hold("this device converts as a CPU does", difference < 0.1)
    return {"steps": report.steps, "heldout_mel": [first, last], "conversion_apart": round(difference, 4)}


def training(bench: Bench) -> dict[str, Any]:
    """Thirty steps of the large voice through the trainer, from random weights; its checkpoint continues to the bit."""
    _random_contentvec(Path(os.environ["RVC_HOME"], "contentvec"))
    lab = Experiment.open("large", str(voice_folder("target")), runtime=bench.runtime)
    lab.prepare(PrepareSettings(preset=bench.name, holdout_minutes=0.2))
    lab.extract(ExtractSettings(f0_method="fcpe"))
    settings = TrainSettings(epochs=1000, batch_size=4, base_generator="none", base_discriminator="none", unlike="none")
    report = lab.train(settings, AfterSteps(30 if bench.on_gpu else 3))
    rows = [row for row in history(lab.layout) if row["kind"] == "step"]
    mel = [row["loss/g/mel"] for row in rows]
    again = Experiment.open("large", runtime=bench.runtime).train(settings, AfterSteps(5))
    bench.hold("hardly a step is lost", report.skipped <= 1)
    bench.hold("training continues from its checkpoint", again.resumed_from == report.steps)
    bench.hold("the mel loss falls", statistics.mean(mel[-5:]) < statistics.mean(mel[:5]) or not bench.on_gpu)
    return {"steps": report.steps, "mel": [mel[0], mel[-1]], "seconds": report.seconds}


def _random_contentvec(folder: Path) -> None:
    """Put an encoder with random weights where ContentVec is looked for: it is as fast, and cannot be fetched here."""
    from transformers import HubertConfig, HubertModel

    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(HubertConfig().to_dict(), default=str))
    torch.save(HubertModel(HubertConfig()).state_dict(), folder / "pytorch_model.bin")
    os.environ["RVC_HUBERT"] = str(folder)


def conversion(bench: Bench) -> dict[str, Any]:
    """Twenty seconds through our network and the reference's, the same weights: how much faster than real time."""
    networks, frames = bench.networks(torch.float32), 2000 if bench.on_gpu else 200
    shape, device = (1, frames), bench.device
    content = torch.randn(*shape, bench.spec.content_width, device=device)
    coarse, f0_hz = torch.full(shape, 60, device=device), torch.full(shape, 150.0, device=device)
    speaker = torch.zeros(1, dtype=torch.long, device=device)
    voice = copy.deepcopy(networks.generator).fuse()
    ours = bench.seconds(lambda: voice.infer(content, coarse, f0_hz, speaker), 5)
    found = {"ours_times_real_time": round(frames / 100 / ours, 1)}
    if bench.reference:
        theirs = ReferenceTrainer(bench.reference, bench.spec, networks, torch.float32).generator
        lengths = torch.tensor([frames], device=device)
        with torch.no_grad():
            taken = bench.seconds(lambda: theirs.infer(content, lengths, coarse, f0_hz, speaker), 5)
        found["ratio"] = round(taken / ours, 3)
    return found


def separation(bench: Bench) -> dict[str, Any]:
    """Seconds for a minute of song: the embedded separator, and a BS-RoFormer with random weights in two precisions."""
    from rvc_core.nn.roformer import Roformer, RoformerShape
    from rvc_core.separation.embedded import EmbeddedSeparator
    from rvc_core.separation.roformer import SHAPES

    torch.manual_seed(0)
    large, rate = next(iter(SHAPES.values())), 44_100
    network = Roformer(large if bench.on_gpu else RoformerShape("split", 16, 1, heads=2, head_width=8)).eval()
    mix = 0.1 * torch.randn(1, 2, 8 * rate if bench.on_gpu else rate)
    with torch.inference_mode():
        truth = network(mix[..., :rate])
    network.to(bench.device)

    def roformer(sound: torch.Tensor, half: bool) -> torch.Tensor:
        dtype = torch.float16 if bench.on_gpu else torch.bfloat16
        with torch.inference_mode(), torch.autocast(bench.device.type, dtype, enabled=half):
            return network(sound.to(bench.device)).float().cpu()

    chunk_s, overlap = mix.shape[-1] / rate, SeparateSettings().overlap
    found: dict[str, Any] = {}
    for name, half, most in (("fp32", False, 5e-3), ("fp16", True, 0.05)):
        if bench.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        taken = bench.seconds(lambda half=half: roformer(mix, half), 3)
        difference = float((roformer(mix[..., :rate], half) - truth).norm() / truth.norm())
        found[name] = {"s_per_minute": round(60 * taken / chunk_s / (1 - overlap), 2), "apart": round(difference, 5)}
        if bench.on_gpu:
            found[name]["gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
        bench.hold(f"a RoFormer in {name} is as on the CPU in float32", difference < most)
    here, there = (EmbeddedSeparator(device) for device in (str(bench.device), "cpu"))
    with torch.inference_mode():
        taken = bench.seconds(lambda: here(mix, rate).cpu(), 3)
        ours, theirs = here(mix, rate).cpu(), there(mix, rate)
    difference = float((ours - theirs).norm() / theirs.norm())
    bench.hold("the embedded separator is as on the CPU", difference < 5e-3)
    return found | {
        "embedded": {"s_per_minute": round(60 * taken / chunk_s / (1 - overlap), 3), "apart": round(difference, 5)}
    }


def flight(bench: Bench) -> dict[str, Any]:
    """What ``rvc check --gpu`` reports."""
    return preflight(bench.name, bench.spec, bench.device).as_json()


SECTIONS = (
    environment, equal, waiting, pairs, conversion, formats, scarcity, nccl, training, journey, estimators,
    separation, flight,
)  # fmt: skip


def run(bench: Bench, names: list[str], budget_seconds: float) -> dict[str, Any]:
    """All sections, or those named; what is left when the time is up is noted as failed."""
    report, began = dict[str, Any](), time.monotonic()
    for section in SECTIONS:
        name, start = section.__name__, time.monotonic()
        if names and name not in names:
            continue
        if start - began > budget_seconds:
            bench.failed.append(f"{name}: no time left")
            continue
        try:
            report[name] = section(bench)
        except Exception as error:  # noqa: BLE001  # what it was is in the report, and the others go on
            bench.failed.append(f"{name}: {type(error).__name__}")
            report[name] = {"error": str(error)[:300], "at": traceback.format_exc().splitlines()[-6:]}
        report[name]["section_seconds"] = round(time.monotonic() - start, 1)
        print(name, json.dumps(report[name], default=str)[:900], flush=True)
        release()
    return report | {"failed": bench.failed, "seconds": round(time.monotonic() - began, 1)}


def main() -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(each.__name__ for each in SECTIONS))
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--preset", default="v2-40k")
    parser.add_argument("--reference", type=Path, help="folder of an RVC WebUI checkout")
    parser.add_argument("--output", type=Path, help="file for the results")
    parser.add_argument("--budget", type=float, default=230.0, help="seconds after which no section begins")
    chosen = parser.parse_args()
    torch.set_float32_matmul_precision("high")
    with tempfile.TemporaryDirectory(prefix="rvc_gpu_") as home:
        os.environ["RVC_HOME"] = home
        report = run(Bench(chosen.device, chosen.preset, chosen.reference), chosen.sections, chosen.budget)
    if chosen.output:
        chosen.output.write_text(json.dumps(report, indent=1, default=str) + "\n")
    print(json.dumps(report["failed"]))
    return bool(report["failed"])


if __name__ == "__main__":
    sys.exit(main())

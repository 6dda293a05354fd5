"""What a defect in the recordings costs the voice: nano-24k, trained for 700 steps on each of four at three levels.

    python benchmarks/harm.py OUTPUT --dataset clean/ --target unheard/ --source others/ --text texts.tsv
    python benchmarks/harm.py OUTPUT --report

700 steps take a core five minutes. The untouched recordings train twice, with two seeds: the difference is what chance
does. The figures are those of `benchmarks/long_runs.py`; each training's are kept in OUTPUT, and it is not done
again. `--share 0/2` takes every second training, so that two can run at once.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile
import torch
from long_runs import FIGURES, Scorer
from survey import DEFECTS

from rvc_core.audio.recordings import recordings_in
from rvc_core.audio.waveform import read_audio
from rvc_core.system.documents import read_json
from rvc_core.system.files import write_json
from rvc_core.workspace.layout import Layout

STEPS, BATCH = 700, 4
LEVELS = {"noise": (25, 15, 5), "clipping": (0.1, 1, 5), "room": (0.3, 0.7, 1.5), "music": (-25, -15, -5)}
CLEAN = [("clean", 1234.0), ("clean", 1.0)]  # the level is the seed
TRAININGS = [*CLEAN, *((name, float(level)) for name, levels in LEVELS.items() for level in levels)]


def train(name: str, level: float, recordings: list[Path], output: Path) -> Path:
    """The voice of recordings with this defect."""
    dataset, voice = output / f"{name} {level:g}", f"harm {name} {level:g}"
    dataset.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(recordings):
        audio = read_audio(path)
        made = audio.samples
        if name != "clean":
            made = DEFECTS[name].plant(audio, level, np.random.default_rng(number))
        soundfile.write(dataset / f"{path.stem}.wav", made / max(1.0, np.abs(made).max()), audio.sample_rate)
    seed = ["--seed", f"{level:g}"] if name == "clean" else []
    chosen = ["--preset", "nano-24k", "--holdout-minutes", "0", "--threads", "1", "--quiet", *seed]
    run = [sys.executable, "-m", "rvc_core.cli"]
    subprocess.run([*run, "prepare", voice, "--dataset", str(dataset), *chosen], check=True)
    subprocess.run([*run, "extract", voice, "--threads", "1", "--quiet"], check=True)
    layout = Layout.of(voice)
    clips = sum("mute" not in line for line in layout.filelist.read_text("utf-8").splitlines())
    epochs = -(-STEPS // -(-clips // BATCH))
    size = ["--batch-size", str(BATCH), "--epochs", str(epochs), "--save-every-epochs", str(epochs)]
    subprocess.run([*run, "train", voice, "--foreground", "--threads", "1", "--quiet", *seed, *size], check=True)
    return layout.final_voice


def report(means: dict[tuple[str, float], dict[str, float]]) -> None:
    """Print each figure's mean, and its difference to the untouched recordings' two trainings."""
    print("| defect | level | " + " | ".join(FIGURES) + " |\n" + "|---" * (2 + len(FIGURES)) + "|")
    base = {figure: np.mean([means[one][figure] for one in CLEAN if one in means]) for figure in FIGURES}
    for (name, level), values in means.items():
        cells = [f"{values[figure]:.3f} ({values[figure] - base[figure]:+.3f})" for figure in FIGURES]
        print(f"| {name} | {level:g} | " + " | ".join(cells) + " |")


def main() -> None:
    """Train and score what is not done yet; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    for flag in ("--dataset", "--target", "--source"):
        parser.add_argument(flag, nargs="+", default=[])
    parser.add_argument("--text")
    parser.add_argument("--share", default="0/1")
    parser.add_argument("--report", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    files = {(name, level): arguments.output / f"{name} {level:g}.json" for name, level in TRAININGS}
    if not arguments.report:
        scorer = Scorer(recordings_in(arguments.target), recordings_in(arguments.source), arguments.text)
        part, parts = map(int, arguments.share.split("/"))
        for name, level in [one for one in TRAININGS[part::parts] if not files[one].exists()]:
            scores = scorer(train(name, level, recordings_in(arguments.dataset), arguments.output))
            lists = {figure: [*values.values()] for figure, values in scores.items()}
            means = {figure: float(np.mean(values)) for figure, values in lists.items() if figure != "words"}
            means["words"] = float(np.divide(*np.sum(lists["words"], axis=0)))
            write_json(files[name, level], {figure: means[figure] for figure in FIGURES})
    report({one: read_json(path, dict) for one, path in files.items() if path.exists()})


if __name__ == "__main__":
    main()

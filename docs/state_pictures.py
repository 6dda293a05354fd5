"""Draw the pictures of docs/overtraining.md: one simulated training for each state, as the notebook's Watch shows it.

python docs/state_pictures.py
"""

import io
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from histories import simulate  # noqa: E402
from rvc_core.notebook.plots import pictures  # noqa: E402
from rvc_core.verdict.learning_curve import History  # noqa: E402
from rvc_core.verdict.overtraining import verdict_of  # noqa: E402

SEEDS = {"undertrained": 3, "good": 9, "overtrained": 7, "collapsed": 16, "cannot_tell": 4}
EARLY = 0.55  # of the run: what `cannot_tell` has seen
LATE = 0.7  # of the run: from here on, `collapsed` makes one tone of everything


def main() -> None:
    """Write one PNG for each state beside this file."""
    for state, seed in SEEDS.items():
        one = simulate(seed)
        rows = [row for row in one.records if state != "cannot_tell" or row["epoch"] <= EARLY * one.epochs]
        if state == "collapsed":
            for row in rows:
                if row["kind"] == "validation":
                    row["sanity/movement"] = 0.1 if row["epoch"] > LATE * one.epochs else 0.9
                    row["heldout/mel"] += 0.4 * (row["epoch"] > LATE * one.epochs)
        verdict = verdict_of(rows)
        if verdict.state != state:
            raise SystemExit(f"seed {seed} is {verdict.state}, not {state}: choose another in SEEDS")
        drawn = Image.open(io.BytesIO(pictures(History.of(rows), verdict, {})[0].png))
        drawn.quantize(64).save(Path(__file__).with_name(f"state_{state}.png"), optimize=True)


if __name__ == "__main__":
    main()

"""Experiments that look trained, without a training: what is in their files is noise."""

import json
from pathlib import Path

import numpy as np

from rvc_core.system.files import sha256_of, write_json, write_jsonl
from rvc_core.workspace.layout import Layout
from rvc_core.workspace.retention import checkpoint_rows


def trained(layout: Layout, step: int, *, kilobytes: int = 8, mel: float | None = None) -> Layout:
    """Let a folder look as if training had come to this step, an epoch every ten; what is in the files is noise."""
    random = np.random.default_rng(step)
    layout.clips.mkdir(parents=True, exist_ok=True)
    write_json(layout.experiment, {"name": layout.name, "dataset": "recordings", "preset": "nano"})
    for number in range(3):
        (layout.clips / f"{number}.wav").write_bytes(bytes([number]) * 1000)
    write_json(layout.stamp("prepare"), {"signature": "s", "content": {}})
    layout.filelist.write_text("clips")
    for path, share in ((layout.state(step), 0.01), (layout.discriminator(step), 0.4), (layout.generator(step), 0.6)):
        path.write_bytes(random.bytes(int(1000 * kilobytes * share)))
    layout.voice(step // 10, step).write_bytes(random.bytes(500))
    layout.final_voice.write_bytes(random.bytes(500))
    digests = {
        path.name: sha256_of(path) for path in (layout.state(step), layout.discriminator(step), layout.generator(step))
    }
    write_json(layout.checkpoints, [*checkpoint_rows(layout), {"step": step, "epoch": step // 10, "sha256": digests}])
    rows = [json.loads(line) for line in layout.metrics.read_text().splitlines()] if layout.metrics.exists() else []
    write_jsonl(
        layout.metrics,
        [
            *rows,
            {"kind": "voice", "step": step, "epoch": step // 10, "path": layout.voice(step // 10, step).name}
            | ({"heldout/mel": mel} if mel is not None else {}),
        ],
    )
    return layout


def tree(root: Path) -> dict[str, str]:
    """Hash of every file by its path; what training does not need is left out."""
    return {
        str(path.relative_to(root)): sha256_of(path)
        for path in root.rglob("*")
        if path.is_file() and path.name not in ("checkpoints.json", "storage.json")
    }

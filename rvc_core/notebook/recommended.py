"""What to begin with: epochs for so many minutes of recordings, a batch size for so much memory of a GPU.

The tables stand in the notebook too. Nothing of them was measured here: the epochs are a rule of thumb, 6,000 to 15,000
steps of 8 clips of 3 s; the batch sizes are those of GPT-SoVITS's guide for slices of 10 s. The verdict says when it is
enough.
"""

import shutil
import subprocess

EPOCHS = ((5, 500), (10, 300), (30, 200), (60, 100))  # up to so many minutes
MORE_EPOCHS = 50
BATCH = ((8, 2), (12, 5), (16, 8), (24, 14))  # from so many GB
LEAST_BATCH = 1


def epochs_for(minutes: float) -> int:
    """Epochs to begin with.

    Examples
    --------
    >>> epochs_for(0.3), epochs_for(25), epochs_for(300)
    (500, 200, 50)
    """
    return next((epochs for most, epochs in EPOCHS if minutes <= most), MORE_EPOCHS)


def batch_for(gigabytes: float) -> int:
    """Batch size to begin with on a GPU with so much memory.

    Examples
    --------
    >>> batch_for(6), batch_for(15.8), batch_for(80)
    (1, 8, 14)
    """
    return next((size for least, size in reversed(BATCH) if gigabytes >= 0.95 * least), LEAST_BATCH)


def gpu_gigabytes() -> float:
    """Memory of the smallest NVIDIA GPU, without touching it; 0 without one."""
    if shutil.which("nvidia-smi") is None:
        return 0.0
    asked = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    told = subprocess.run(asked, capture_output=True, text=True).stdout.split()
    return min((int(one) for one in told if one.isdigit()), default=0) / 1024

"""Training steps as CUDA graphs: recorded once for each shape of batch, then started as a whole.

A step is thousands of small operations. To start them one by one takes the processor several times as long as the GPU
needs to compute them; a graph starts them all at once. Its tensors stay where they are, so each batch is copied into
them, padded to the next multiple of `BUCKET_FRAMES`.

Source: PyTorch's notes on CUDA graphs, which say what may be recorded.
"""

from collections import Counter
from collections.abc import Callable

import torch

from ..system.memory import release
from ..workspace.dataset import BUCKET_FRAMES, Batch
from .distributed import ALONE, Ranks
from .memory import Portions
from .step import Gradients, Networks, Step, StepResult, train_step

_SIGHTINGS = 2  # steps of a shape before it is recorded: rare shapes are not worth it
Turn = Callable[[], torch.Tensor | None]


class StepGraphs:
    """Makes training steps, from recorded graphs where it can. Good for these networks until others are loaded.

    Parameters
    ----------
    networks, ranks, portions
        As for `train_step`.
    record : callable, optional
        Records turns of a step, see `CudaRecorder`.

    Attributes
    ----------
    recorded : dict
        Number of clips and of frames → the batch's places in memory, the step, and what computes its turns.

    Examples
    --------
    >>> from rvc_core.presets import preset
    >>> networks = Networks.fresh(preset("nano"), seed=1, device=torch.device("cpu"))
    >>> StepGraphs(networks).recorded          # nothing yet, and a CPU has no graphs
    {}
    """

    def __init__(
        self,
        networks: Networks,
        *,
        ranks: Ranks = ALONE,
        portions: Portions | None = None,
        record: Callable[[Turn], Turn] | None = None,
    ) -> None:
        on_gpu = networks.device.type == "cuda"
        self._record = record or (CudaRecorder(networks) if on_gpu else None)
        self._networks, self._ranks = networks, ranks
        self._portions = portions or Portions(1 << 30)
        self._portions.spare = self.clear
        self.recorded: dict[tuple[int, int], tuple[Batch, Step, list[Turn]]] = {}
        self._seen = Counter[tuple[int, int]]()

    def clear(self) -> bool:
        """Give back the memory of all graphs, and record no more; returns whether there was any."""
        had_some = bool(self.recorded)
        self.recorded.clear()
        self._record = None
        return had_some

    def step(self, batch: Batch) -> StepResult:
        """Move both networks once, as `train_step` does."""
        clips, frames = batch.content.shape[:2]
        shape = clips, -(-frames // BUCKET_FRAMES) * BUCKET_FRAMES
        self._seen[shape] += 1
        if self._seen[shape] > _SIGHTINGS and shape not in self.recorded and clips <= self._portions.clips:
            self._try_to_record(batch.padded(shape[1]), shape)
        if shape not in self.recorded:
            return train_step(
                self._networks,
                batch,
                ranks=self._ranks,
                portions=self._portions,
            )
        places, step, turns = self.recorded[shape]
        torch._foreach_copy_(places.tensors(), batch.padded(shape[1]).tensors())
        for turn in turns:
            self._ranks.add(turn())
        self._networks.moved(self._networks.generator)  # which a recorded step casts at its beginning
        return step.result

    def _try_to_record(self, batch: Batch, shape: tuple[int, int]) -> None:
        """Record steps on batches of this shape; if that fails, go on without graphs and say so."""
        if self._record is None:
            return
        step = Step(
            Gradients(self._networks, batch),
            lambda clips, work: work([slice(0, clips)]),
            is_alone=self._ranks.count == 1,
        )
        release()
        try:
            self.recorded[shape] = batch, step, [self._record(turn) for turn in step.turns]
        except RuntimeError as error:  # memory, or an operation that this GPU cannot record
            del step
            self.clear()
            release()
            scaler = self._networks.scaler.state_dict()
            self._networks.compute_in(self._networks.dtype, scaler=scaler)  # a turn may have stopped half way
            reason = str(error).splitlines()[0]
            self._portions.tell(f"training goes on without CUDA graphs, which makes it slower: {reason}")


class CudaRecorder:
    """Records turns of steps as CUDA graphs, which share their memory: one step is finished before the next begins."""

    def __init__(self, networks: Networks) -> None:
        self._optimizers = networks.generator_optimizer, networks.discriminator_optimizer
        self._memory = torch.cuda.graph_pool_handle()

    def __call__(self, turn: Turn) -> Turn:
        """Record what a turn computes, without computing it; returns what computes it."""
        graph = torch.cuda.CUDAGraph()
        self._allow_recording(True)
        try:
            with torch.cuda.graph(graph, pool=self._memory, capture_error_mode="thread_local"):
                sums = turn()
        finally:
            self._allow_recording(False)

        def replay() -> torch.Tensor | None:
            graph.replay()
            return sums

        return replay

    def _allow_recording(self, yes: bool) -> None:
        for optimizer in self._optimizers:  # otherwise torch warns that it was allowed and is not done
            for group in optimizer.param_groups:
                group["capturable"] = yes

"""The end of a step of many small tensors; lrfused's also where it writes the clipped gradients."""

import functools

import torch
import verify
from change_sides import OURS, SETTINGS
from changed_steps import CHANGED, USUAL
from data import Data
from device import Cpu
from pipelines import fused_whole
from providers import PROVIDERS
from timing import Contestant
from workloads import CLIP, Case, find


class StepEnds:
    """A turn: that of each pipeline, which were checked before."""

    def __init__(self, side: str, workload: str):
        self._data = Data(Case(find(workload), torch.float32, CLIP), SETTINGS)
        self._expected = verify.reference(self._data, SETTINGS)
        self._deviation = 0.0
        self._contestants = {USUAL: self._contestant(side, writes=False)}
        if side == OURS:
            self._contestants[CHANGED] = self._contestant(side, writes=True)
            self._check_written(self._contestants[CHANGED])

    def turn(self) -> dict[str, float]:
        """Seconds of a step of each pipeline."""
        for contestant in self._contestants.values():
            contestant.take_turn(Cpu())
        return {part: contestant.turns[-1] for part, contestant in self._contestants.items()}

    def check(self) -> float:
        """The largest deviation before anything was timed."""
        return self._deviation

    def _contestant(self, side: str, writes: bool) -> Contestant:
        provider, params = PROVIDERS[side], self._data.parameters()
        build = functools.partial(fused_whole, write_grads=True) if writes else provider.build
        pipeline = build(params, CLIP, SETTINGS)
        found = verify.check(provider, pipeline, params, self._data, self._expected)
        self._deviation = max(self._deviation, *found.values())
        return Contestant(pipeline.step, params, self._data)

    def _check_written(self, contestant: Contestant) -> None:
        """That the first of the gradients, whose norm is above the limit, is clipped in place."""
        data, pool = self._data, self._data.gradients[0].double()
        contestant.take_step(Cpu())
        pool *= SETTINGS.max_grad_norm / (data.norm(pool) + 1e-6)
        for param, start in zip(contestant.params, data.starts, strict=True):
            assert param.grad is not None
            sizes = pool.abs().clamp_min(verify.TINY)
            found = verify.deviation(param.grad, start, data, pool, sizes)
            if not found <= verify.BOUNDS["float32"]:
                raise verify.WrongResult(f"a written gradient is off by {found:.2e} of its size")
            self._deviation = max(self._deviation, found)

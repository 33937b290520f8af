"""A run in shards that goes on with another number of ranks, beside one in a single process."""

import warnings
from pathlib import Path
from typing import Any

from torch import Tensor, distributed
from torch.distributed.tensor import DTensor, distribute_tensor

from . import quiet
from .carriers import CARRIERS
from .chains import Chain
from .going_on import COUNTERS, assert_equal
from .scenarios import BEFORE, Scenario
from .training import Run

EACH = 2  # steps with each number of ranks after the first


def whole(scenario: Scenario, seed: int, steps: int) -> Run:
    """The run in a single process, which nothing interrupted."""
    run = Run("plain", scenario, seed)
    run.write_inputs(0.7)
    for t in range(steps):
        run.step(t)
    return run


def stage(chain: Chain, index: int, folder: Path, seed: int) -> None:
    """What the ranks of one number do: load, look, go on, save."""
    done, steps = (BEFORE + EACH * (index - 1), EACH) if index else (0, BEFORE)
    reference = whole(chain.scenario, seed, done)
    run = Run("fsdp2", chain.scenario, seed, later=index > 0)
    carrier = CARRIERS[chain.carrier]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if index:
            _take_parameters(run, reference)
            carrier.load(run, None, folder / f"checkpoint-{index - 1}")
            _compare(run, reference, "after the load", COUNTERS)
        else:
            run.write_inputs(0.7)
        for t in range(done, done + steps):
            run.step(t)
            reference.step(t)
            _compare(run, reference, f"after step {t}", tuple(reference.metrics()))
        target = folder / f"checkpoint-{index}"
        target.mkdir(exist_ok=True)
        carrier.save(run, target)
    assert not quiet.others(caught), f"warnings: {quiet.others(caught)}"


def _shard(like: Tensor, value: Any) -> Any:
    """What this rank holds of a tensor that lies as the other one does."""
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.dim() == 0:
        return value
    spread = distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)
    return spread.to_local()


def _take_parameters(run: Run, reference: Run) -> None:
    couples = zip(run.params(), reference.parameters(), strict=True)
    run.take_parameters([_shard(param, value) for param, value in couples])


def _compare(run: Run, reference: Run, when: str, names: tuple[str, ...]) -> None:
    """Bit-equal to the shards of the whole."""
    where = f"{when} with {distributed.get_world_size()} ranks"
    ours, theirs = run.metrics(), reference.metrics()
    if ours:
        assert_equal({n: ours[n] for n in names}, {n: theirs[n] for n in names}, where)
    expected = reference.standing()
    for i, param in enumerate(run.params()):
        for name in expected:
            if name == f"parameter {i}" or name.endswith(f" of parameter {i}"):
                expected[name] = _shard(param, expected[name])
    assert_equal(run.standing(), expected, where)

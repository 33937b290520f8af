"""The counts of the present parameters: ours, or those that somebody put into the states."""

from torch import Tensor

from lrfused.engine.products import Recomputed
from lrfused.groups.matrix import Hyperparameters
from lrfused.memory.normal_tensors import normal_tensors
from lrfused.settings.options import BiasCorrection
from lrfused.state.device_state import DeviceState
from lrfused.state.step_counts import Counts, Groups, Pair, States, as_count


@normal_tensors()
def count(state: DeviceState, hyper: Hyperparameters, groups: Groups, states: States) -> Counts:
    """Counts for the present list of parameters, which the states show from here on.

    Others than ours were loaded behind our back: the schedules' step is not behind them.
    """
    corrections = [row.options.bias_correction for row in hyper.rows]
    carries = [
        corrections[g] == BiasCorrection.PRODUCT
        for g, group in enumerate(groups)
        for _ in group["params"]
    ]
    step = _furthest(state, groups, states) if any(carries) else state.step
    recomputed = Recomputed(groups, hyper.rows, step)
    counts, largest, is_load = state.tensors.moved(groups, states, carries, recomputed)
    state.replace_counts(counts)
    counts.bind(states)
    if largest > state.step:
        state.raise_step(largest)
        if is_load:  # and so are the numbers in the groups: no caller's writes
            hyper.mirror(groups, largest, reset=True, again=True)
    recomputed.warn("optimizer.state")
    return counts


def restore(
    state: DeviceState, params: list[Tensor], counts: list[int], products: list[Pair]
) -> None:
    """Take over loaded counts, exactly, with the products of the betas."""
    # In place where it can be: captured graphs know these addresses.
    if [id(p) for p in params] != [id(p) for p in state.tensors.params]:
        state.replace_counts(Counts(params, [False] * len(params), state.words.device))
    for index, (updates, pair) in enumerate(zip(counts, products, strict=True)):
        state.tensors.set(index, updates, pair)


def _furthest(state: DeviceState, groups: Groups, states: States) -> int:
    """The counter, or a larger count in the states."""
    params = [param for group in groups for param in group["params"]]
    shown = [states[p]["step"] for p in params if (states.get(p) or {}).get("step") is not None]
    return max([state.step, *map(as_count, shown)])

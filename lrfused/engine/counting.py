"""The counts of the present parameters: our own, or those found in replaced states."""

import torch
from torch import Tensor

from lrfused.engine.recovery import Recovered
from lrfused.groups.matrix import Hyperparameters
from lrfused.memory.normal_tensors import normal_tensors
from lrfused.settings.options import GroupOptions
from lrfused.state.device_state import DeviceState
from lrfused.state.step_counts import Counts, Groups, Numbers, States, as_count


@normal_tensors()
def count(
    state: DeviceState,
    hyper: Hyperparameters,
    options: list[GroupOptions],
    groups: Groups,
    states: States,
) -> Counts:
    """Counts for the present parameters; afterwards the states hold views of them.

    Counts that are not ours were loaded without `load_state_dict`; the schedules' step is raised to
    the largest of them.
    """
    rule = state.tensors.rule
    matters = [any(carried.matters(o) for carried in rule.carried) for o in options]
    carries = [matters[g] for g, group in enumerate(groups) for _ in group["params"]]
    step = _furthest(state, groups, states) if any(carries) else state.step
    recovered = Recovered(rule, options, groups, hyper.rows, step)
    counts, largest, is_load = state.tensors.moved(groups, states, carries, recovered)
    state.replace_counts(counts)
    counts.bind(states)
    if largest > state.step:
        state.set_step(largest)
    if is_load:  # then the groups' numbers were loaded too, not written by the caller
        hyper.mirror(groups, state.step, reset=True, again=True)
    recovered.warn("optimizer.state")
    return counts


def restore(
    state: DeviceState,
    states: States,
    params: list[Tensor],
    counts: list[int],
    carried: list[Numbers],
) -> None:
    """Set the counts exactly as loaded, and the carried numbers."""
    # In place where possible: captured graphs hold these addresses.
    if [id(p) for p in params] != [id(p) for p in state.tensors.params]:
        state.replace_counts(
            Counts(state.tensors.rule, params, [False] * len(params), state.words.device)
        )
    state.tensors.forget_carried_views(states)
    state.tensors.set_all(
        torch.tensor(counts, dtype=torch.int64, device="cpu"),
        torch.tensor(carried, dtype=torch.float64, device="cpu"),
    )


def _furthest(state: DeviceState, groups: Groups, states: States) -> int:
    """The step counter, or the largest count in the states if that is larger."""
    if not state.tensors.rule.counts:
        return state.step
    params = [param for group in groups for param in group["params"]]
    shown = [states[p]["step"] for p in params if (states.get(p) or {}).get("step") is not None]
    return max([state.step, *map(as_count, shown)])

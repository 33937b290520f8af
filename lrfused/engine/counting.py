"""The counts of the present parameters: ours, or those that somebody put into the states."""

from typing import TYPE_CHECKING

from lrfused.engine.products import Recomputed
from lrfused.memory.normal_tensors import normal_tensors
from lrfused.state.device_state import Field
from lrfused.state.step_counts import Counts, Groups, States, as_count

if TYPE_CHECKING:
    from lrfused.engine.engine import Engine


@normal_tensors()
def count(engine: "Engine", groups: Groups, states: States) -> Counts:
    """Counts for the present list of parameters, which the states show from here on.

    Others than ours were loaded behind our back: the schedules' step is not behind them.
    """
    state = engine.state(groups)
    matters = engine.rule.carried[0].matters
    carries = [
        matters(engine.hyper.rows[g].options)
        for g, group in enumerate(groups)
        for _ in group["params"]
    ]
    step = _furthest(engine, groups, states) if any(carries) else engine.counter()
    recomputed = Recomputed(groups, engine.hyper.rows, step)
    state.tensors, largest, is_load = state.tensors.moved(groups, states, carries, recomputed)
    state.tensors.bind(states)
    if largest > engine.counter():
        state.words[Field.STEP] = largest
        if is_load:  # and so are the numbers in the groups: no caller's writes
            engine.hyper.mirror(groups, largest, reset=True, again=True)
    recomputed.warn("optimizer.state")
    return state.tensors


def count_anew(engine: "Engine", groups: Groups, states: States) -> None:
    """Take over counts that somebody put into the states in place of ours, if so.

    Before what stands in the groups is taken for the caller's: it may be loaded, too.
    """
    if not engine.state(groups).tensors.show_in(groups, states):
        engine.settled_state(groups)
        count(engine, groups, states)


def _furthest(engine: "Engine", groups: Groups, states: States) -> int:
    """The counter, or a larger count in the states."""
    params = [param for group in groups for param in group["params"]]
    shown = [states[p]["step"] for p in params if (states.get(p) or {}).get("step") is not None]
    return max([engine.counter(), *map(as_count, shown)])

"""Taking over loaded counters, schedules and inputs: by our load, or noticed after another's.

ZeroRedundancyOptimizer, for one, never calls the ``load_state_dict`` of the optimizer in it: it
puts what was saved into its groups and state.
"""

from typing import TYPE_CHECKING

from lrfused.device.graph_capture import is_capturing
from lrfused.engine.counting import count
from lrfused.groups.carried import STEP, counters_in
from lrfused.groups.differences import differences
from lrfused.groups.inputs import input_values
from lrfused.groups.stored import stored_in
from lrfused.memory.normal_tensors import normal_tensors
from lrfused.settings.slots import Slot
from lrfused.state.device_state import Field
from lrfused.state.step_counts import Counts, Groups, Numbers, States, as_count
from lrfused.warn import warn

if TYPE_CHECKING:
    from lrfused.engine.engine import Engine


@normal_tensors()
def adopt(engine: "Engine", groups: Groups, states: States) -> None:
    """Take over what was loaded into groups and state behind our back.

    Raises:
        RuntimeError: a CUDA graph is being captured.
        ValueError: a value that cannot be.
    """
    carried = engine.known.carried
    if not carried.were_replaced(groups):
        carried.put_into(groups)
        return
    if is_capturing(engine.state(groups).words.device):
        raise RuntimeError("step: another state was loaded; take a step before the capture")
    counters, stored = counters_in(groups), stored_in(groups)
    counts = [
        as_count(states[param]["step"])
        for group in groups
        for param in group["params"]
        if states.get(param, {}).get("step") is not None
    ]
    inputs = input_values(engine.hyper.rows, stored, [{} for _ in groups])
    nothing: list[set[Slot]] = [set() for _ in groups]
    different = differences(engine.hyper.rows, engine.options, stored, groups, nothing)
    for tensor, value in inputs:
        tensor.fill_(value)
    taken = groups[0].get(STEP)
    set_counters(engine, groups, counters, max(counts, default=0), again=True)
    carried.taken = taken
    if different:
        warn(f"param_groups: {different}")


def restore(
    engine: "Engine", groups: Groups, states: States, counts: list[int], products: list[Numbers]
) -> None:
    """Take over loaded counts, exactly, with the products of the betas."""
    state = engine.state(groups)
    params = [p for group in groups for p in group["params"]]
    # In place where it can be: captured graphs know these addresses.
    if [id(p) for p in params] != [id(p) for p in state.tensors.params]:
        engine.forget_table()
        state.tensors = Counts(engine.rule, params, [False] * len(params), state.words.device)
    for index, (updates, pair) in enumerate(zip(counts, products, strict=True)):
        state.tensors.set(index, updates, pair)
    count(engine, groups, states)


def set_counters(
    engine: "Engine",
    groups: Groups,
    counters: dict[Field, float],
    largest_count: int,
    again: bool = False,
) -> None:
    """The counters and the loss scale; loaded values are not a caller's, so mirrors are reset."""
    if engine.readback is not None:
        engine.readback.forget()
    engine.state(groups).set_counters(engine.options.loss_scale, counters, largest_count)
    engine.known.carried.put_into(groups)
    engine.known.describe(engine.hyper.rows, groups)
    engine.hyper.mirror(groups, engine.counter(), reset=True, again=again)

"""Saving: torch's state_dict, after this package's keys in the groups are updated."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from lrfused.engine.bookkeeping import Bookkeeping
from lrfused.groups.shared_counters import BY_PLACE, NUMBER
from lrfused.memory.dtensor import is_flattened
from lrfused.memory.normal_tensors import normal_tensors
from lrfused.settings.options import GroupOptions
from lrfused.state.masks import KEY, clear
from lrfused.state.operands import allocate, operands_in
from lrfused.state.step_counts import Counts


@normal_tensors()
def state_dict(
    books: Bookkeeping, opt: Optimizer, base: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """torch's dictionary; our own tensors in it are copied before the caller's hooks see it.

    Raises:
        RuntimeError: a step on a GPU was refused and the error was not yet raised.
    """
    groups = opt.param_groups
    reading = books.read(groups, opt.state)
    books.known.counters.fill(reading, books.options.loss_scale is not None)
    books.known.describe(books.hyper.rows, groups)
    handle = opt.register_state_dict_post_hook(
        lambda _, saved: _put_in_copies(books, opt, saved), prepend=True
    )
    try:
        return base()
    finally:
        handle.remove()


def _put_in_copies(books: Bookkeeping, opt: Optimizer, saved: dict[str, Any]) -> None:
    """Copy our tensors, so that a loading optimizer does not share or see changes of our memory."""
    shared = books.known.counters.tensors.items()
    copies = {NUMBER: BY_PLACE, **{name: tensor.clone() for name, tensor in shared}}
    for group in saved["param_groups"]:
        group.update(copies)
    counts = books.count(opt.param_groups, opt.state)
    states = saved["state"]
    for index, own in enumerate(counts.copies(opt.state)):
        if isinstance(states.get(index), dict):
            states[index] = {**states[index], **own}
    pairs = zip(books.group_options, opt.param_groups, strict=True)
    options = [of_group for of_group, group in pairs for _ in group["params"]]
    masks = books.masks.shown(counts.params)
    for index, param in enumerate(counts.params):
        if param in masks:
            state = states.get(index)
            if not state:
                state = _first_state(books, options[index], counts, index)
                clear((x for _, x in operands_in(books.rule, state)), masks[param])
            states[index] = {**state, KEY: _as_carried(masks[param], param)}


def _first_state(
    books: Bookkeeping, options: GroupOptions, counts: Counts, index: int
) -> dict[str, Any]:
    """The state of a parameter that has none yet: a mask alone would look like all of it."""
    made: dict[Tensor, dict[str, Any]] = defaultdict(dict)
    param = counts.params[index]
    allocate(books.rule, options, made, param)
    return {**made[param], **{key: view.clone() for key, view in counts.shown.views[index].items()}}


def _as_carried(mask: Tensor, param: Tensor) -> Tensor:
    """A mask in the parameter's dtype where FSDP1 carries it, which refuses bools."""
    return mask.to(param.dtype) if is_flattened(param) else mask

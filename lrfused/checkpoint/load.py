"""Loading: a checkpoint is checked completely before anything is changed.

Moments keep the dtype they were saved in and are copied into the present memory, so that addresses
in captured graphs stay valid.
"""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lrfused.checkpoint.validate import Loaded, check
from lrfused.engine.bookkeeping import Bookkeeping
from lrfused.groups.differences import differences
from lrfused.memory.dtensor import is_distributed, local, placing
from lrfused.memory.uninterrupted import uninterrupted
from lrfused.rules import UpdateRule
from lrfused.rules.average import AVERAGE
from lrfused.state.device_state import Field
from lrfused.state.operands import new_operand, operands_in, own_operands_in
from lrfused.warn import warn

Copies = list[tuple[Tensor, Tensor]]  # (present tensor, loaded tensor)


def load_state_dict(
    books: Bookkeeping, opt: Optimizer, saved: dict[str, Any], load_schedules: bool
) -> None:
    """torch's load_state_dict, except that nothing changes unless everything can be loaded."""
    if not isinstance(saved, dict):
        raise TypeError(f"state_dict: must be a dictionary, got {type(saved).__name__}")
    if not saved:
        return
    saved = saved.copy()
    for pre_hook in opt._optimizer_load_state_dict_pre_hooks.values():
        replaced = pre_hook(opt, saved)
        saved = saved if replaced is None else replaced
    books.align(opt.param_groups)
    books.hyper.take_schedules(opt.param_groups)
    loaded = check(books, opt.param_groups, saved, load_schedules)
    taken = [set(schedules) for schedules in loaded.schedules]
    different = differences(
        books.rule, books.hyper.rows, books.known.describer, loaded.stored, loaded.groups, taken
    )
    copies = _prepare(books.rule, opt, loaded)
    step_is_known = books.says_the_step(loaded.counters) or books.step_was_set
    uninterrupted(lambda: _commit(books, opt, loaded, copies))
    for post_hook in opt._optimizer_load_state_dict_post_hooks.values():
        post_hook(opt)
    loaded.recovered.warn("load_state_dict")
    if different:
        warn(f"load_state_dict: {different}")
    if not step_is_known and books.hyper.follow_step:
        warn(
            "load_state_dict: the checkpoint does not say how many steps were completed, and the "
            f"schedules go on at step {books.counters.step}; optimizer.set_step(n) says it"
        )


def _prepare(rule: UpdateRule, opt: Optimizer, loaded: Loaded) -> Copies:
    """Build the new states with all memory allocated; returns the copies that are left to do.

    Loaded moments that share memory with present ones are cloned, as that will be overwritten.
    """
    old_states = {p: state for p, state in opt.state.items() if isinstance(state, dict)}
    in_use = {_memory(t) for state in old_states.values() for _, t in operands_in(rule, state)}
    copies: Copies = []
    params = zip(_params(loaded.groups), loaded.counts, strict=True)
    for param, count in params:
        state, before = loaded.states.get(param), old_states.get(param, {})
        if (
            not state
            and AVERAGE.key in before
            and not (rule.counts or own_operands_in(rule, before))
        ):
            state = loaded.states[param] = {}  # of SGD without momentum that is all there may be
        elif not state:
            continue
        for name in rule.state_keys:
            new, old = state.get(name), before.get(name)
            if new is None and old is not None and name == AVERAGE.key:
                new = state[name] = new_operand(AVERAGE, param)  # captured graphs write the old one
            if new is None or new is old:
                continue
            stays = old is not None and not old.is_inference() and _form(old) == _form(new)
            own = new.detach().clone() if not stays or _memory(new) in in_use else new
            state[name] = old if stays else own
            if old is not None and stays:
                copies.append((old, own))
        if rule.counts:
            state["step"] = torch.tensor(float(count), dtype=torch.float32, device="cpu")
    return copies


def _commit(books: Bookkeeping, opt: Optimizer, loaded: Loaded, copies: Copies) -> None:
    for old, new in copies:
        local(old).copy_(local(new))
    for group, new_group in zip(opt.param_groups, loaded.groups, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(float(new_group["lr"]))
            new_group["lr"] = group["lr"]
    for tensor, value in loaded.inputs:
        tensor.fill_(value)
    states = defaultdict(dict, loaded.states)
    opt.__setstate__({"state": states, "param_groups": loaded.groups})
    for g, schedules in enumerate(loaded.schedules):
        for slot, schedule in schedules.items():
            books.hyper.follow(g, slot, schedule)
    books.load_counts(opt.param_groups, opt.state, loaded.counts, loaded.carried)
    books.load_masks(opt.state, loaded.masks)
    counters = loaded.counters
    if books.step_was_set and not books.rule.counts:
        counters = {**counters, Field.STEP: books.counters.step}  # the caller's word
    books.load_counters(opt.param_groups, counters, max(loaded.counts, default=0))


def _params(groups: list[dict[str, Any]]) -> list[Tensor]:
    return [p for group in groups for p in group["params"]]


def _memory(tensor: Tensor) -> int:
    return local(tensor).untyped_storage().data_ptr()


def _form(tensor: Tensor) -> tuple[Any, ...]:
    """What must be equal for one tensor's values to be copied into another without loss."""
    spread = placing(tensor) if is_distributed(tensor) else ()
    return (tensor.shape, tensor.dtype, tensor.device, spread)

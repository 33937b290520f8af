"""Loading: everything of a checkpoint is checked first, then taken over as a whole.

Moments keep the dtype they were saved in and are copied into the memory that is in use, so that
addresses in captured graphs stay valid.
"""

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lrfused.build import MOMENTS
from lrfused.checkpoint.adopt import restore, set_counters
from lrfused.checkpoint.differences import differences
from lrfused.checkpoint.validate import Loaded, check
from lrfused.counts import States
from lrfused.distributed import is_distributed, local, placing
from lrfused.warn import warn

if TYPE_CHECKING:
    from lrfused.adamw import AdamW


def load_state_dict(opt: "AdamW", saved: dict[str, Any], load_schedules: bool) -> None:
    """torch's load_state_dict, with nothing changed unless everything can be loaded."""
    if not isinstance(saved, dict):
        raise TypeError(f"state_dict: must be a dictionary, got {type(saved).__name__}")
    if not saved:
        return
    saved = saved.copy()
    for pre_hook in opt._optimizer_load_state_dict_pre_hooks.values():
        replaced = pre_hook(opt, saved)
        saved = saved if replaced is None else replaced
    engine = opt._engine
    engine.align(opt.param_groups)
    engine.hyper.take_schedules(opt.param_groups)
    loaded = check(engine, opt.param_groups, saved, load_schedules)
    taken = [set(schedules) for schedules in loaded.schedules]
    different = differences(engine.hyper.rows, engine.options, loaded.stored, loaded.groups, taken)
    _uninterrupted(opt, loaded)
    for post_hook in opt._optimizer_load_state_dict_post_hooks.values():
        post_hook(opt)
    loaded.recomputed.warn("load_state_dict")
    if different:
        warn(f"load_state_dict: {different}")


def _uninterrupted(opt: "AdamW", loaded: Loaded) -> None:
    """A keyboard interrupt has to wait; what was done by then is done again, to the same end."""
    waiting = None
    old_states = {p: dict(s) for p, s in opt.state.items() if isinstance(s, dict)}
    while True:
        try:
            _commit(opt, loaded, old_states)
            break
        except KeyboardInterrupt as interrupt:
            waiting = interrupt
    if waiting is not None:
        raise waiting


def _commit(opt: "AdamW", loaded: Loaded, old_states: States) -> None:
    _part_from(old_states, loaded.states)
    counts = dict(zip(_params(loaded.groups), loaded.counts, strict=True))
    states: defaultdict[Any, Any] = defaultdict(dict)
    for key, state in loaded.states.items():
        states[key] = state
        if key in counts and state:
            for name in MOMENTS:
                if name in state:
                    state[name] = _in_place(state[name], old_states.get(key, {}).get(name))
            state["step"] = torch.tensor(float(counts[key]), device=local(key).device)
    for group, new in zip(opt.param_groups, loaded.groups, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(float(new["lr"]))
            new["lr"] = group["lr"]
    for tensor, value in loaded.inputs:
        tensor.fill_(value)
    opt.__setstate__({"state": states, "param_groups": loaded.groups})
    engine = opt._engine
    for g, schedules in enumerate(loaded.schedules):
        for slot, schedule in schedules.items():
            engine.hyper.follow(g, slot, schedule)
    restore(engine, opt.param_groups, opt.state, loaded.counts, loaded.products)
    largest = max(loaded.counts, default=0)
    set_counters(engine, opt.param_groups, loaded.counters, largest)


def _params(groups: list[dict[str, Any]]) -> list[Tensor]:
    return [p for group in groups for p in group["params"]]


def _part_from(old_states: States, new_states: States) -> None:
    """Copies of loaded moments whose memory is in use for another one: it will be overwritten."""
    in_use = {_memory(t) for state in old_states.values() for t in _moments(state)}
    for param, state in new_states.items():
        for key in MOMENTS if isinstance(param, Tensor) else ():
            new, old = state.get(key), old_states.get(param, {}).get(key)
            if new is not None and new is not old and _memory(new) in in_use:
                state[key] = new.detach().clone()


def _memory(tensor: Tensor) -> int:
    return local(tensor).untyped_storage().data_ptr()


def _moments(state: dict[str, Any]) -> list[Tensor]:
    return [state[key] for key in MOMENTS if isinstance(state.get(key), Tensor)]


def _in_place(new: Tensor, old: Tensor | None) -> Tensor:
    """The loaded moment in the memory that is in use, or in memory of its own."""
    if new is old:
        return new
    if old is None or old.is_inference() or _form(old) != _form(new):
        return new.detach().clone()
    local(old).copy_(local(new))
    return old


def _form(tensor: Tensor) -> tuple[Any, ...]:
    """What has to be equal for one tensor to hold what another does."""
    spread = placing(tensor) if is_distributed(tensor) else ()
    return (tensor.shape, tensor.dtype, tensor.device, spread)

"""Loading: everything of a checkpoint is checked first, then taken over as a whole.

Moments keep the dtype they were saved in and are copied into the memory that is in use, so that
addresses in captured graphs stay valid.
"""

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lrfused.build import MOMENTS
from lrfused.device_state import PERSISTENT, Field
from lrfused.options import Error, Slot
from lrfused.saving import plain_options
from lrfused.validation import COUNTERS, Loaded, check, inputs_by_name
from lrfused.warn import warn

if TYPE_CHECKING:
    from lrfused.adamw import AdamW

States = dict[Tensor, dict[str, Any]]


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
    loaded = check(opt, saved, load_schedules)
    different = _differences(opt, loaded, load_schedules)
    if load_schedules:
        for g, made in enumerate(loaded.schedules):
            for slot, schedule in made.items():
                opt._engine.hyper.replace(g, slot, schedule)
    _commit(opt, loaded)
    for post_hook in opt._optimizer_load_state_dict_post_hooks.values():
        post_hook(opt)
    if different:
        warn(
            f"load_state_dict: the checkpoint was written with other values of "
            f"{', '.join(different)}; those of this optimizer are kept"
        )


def _differences(opt: "AdamW", loaded: Loaded, load_schedules: bool) -> list[str]:
    """What the checkpoint was written with and this optimizer does otherwise."""
    different = []
    for g, (extra, made) in enumerate(zip(loaded.extras, loaded.schedules, strict=True)):
        if extra is None:
            continue
        for slot, cell in zip(Slot, opt._engine.hyper.rows[g], strict=True):
            name = slot.name.lower()
            if load_schedules and slot in made:
                continue
            if cell.schedule != made.get(slot) or (
                cell.schedule is None and name in extra["schedules"]
            ):
                different.append(f"{name} of group {g}")
        now = plain_options(opt, g)
        different += [
            f"{k} of group {g}" for k, v in extra["options"].items() if k in now and now[k] != v
        ]
    return different


def _commit(opt: "AdamW", loaded: Loaded) -> None:
    old_states = {p: dict(state) for p, state in opt.state.items()}
    _part_from(old_states, loaded.states)
    states: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
    for param, state in loaded.states.items():
        states[param] = state
        for key in MOMENTS:
            if key in state:
                state[key] = _in_place(state[key], old_states.get(param, {}).get(key))
    for group, new in zip(opt.param_groups, loaded.groups, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(float(new["lr"]))
            new["lr"] = group["lr"]
    counts = dict(zip(_params(loaded.groups), loaded.counts, strict=True))
    for param, state in states.items():
        if param in counts and state:
            state["step"] = torch.tensor(float(counts[param]), device=param.device)
    opt.__setstate__({"state": states, "param_groups": loaded.groups})
    inputs = inputs_by_name(opt)
    for extra in loaded.extras:
        for name, value in (extra["inputs"] if extra else {}).items():
            if name in inputs:
                inputs[name].fill_(value)
    opt._engine.restore(opt.param_groups, opt.state, loaded.counts, loaded.products)
    _restore_counters(opt, loaded)
    opt._mirror(reset=True)


def _params(groups: list[dict[str, Any]]) -> list[Tensor]:
    return [p for group in groups for p in group["params"]]


def _part_from(old_states: States, new_states: States) -> None:
    """Copies of loaded moments whose memory is in use for another one: it will be overwritten."""
    in_use = {t.untyped_storage().data_ptr() for s in old_states.values() for t in _moments(s)}
    for param, state in new_states.items():
        for key in MOMENTS:
            new, old = state.get(key), old_states.get(param, {}).get(key)
            if new is not None and new is not old and new.untyped_storage().data_ptr() in in_use:
                state[key] = new.detach().clone()


def _moments(state: dict[str, Any]) -> list[Tensor]:
    return [state[key] for key in MOMENTS if key in state]


def _in_place(new: Tensor, old: Tensor | None) -> Tensor:
    """The loaded moment in the memory that is in use, or in memory of its own."""
    if new is old:
        return new
    if old is None or (old.shape, old.dtype, old.device) != (new.shape, new.dtype, new.device):
        return new.detach().clone()
    return old.copy_(new)


def _restore_counters(opt: "AdamW", loaded: Loaded) -> None:
    """Counters and loss scale; from torch's checkpoint the largest step, the initial scale."""
    engine = opt._engine
    state, policy = engine.state(opt.param_groups), engine.options.loss_scale
    counters = dict.fromkeys(COUNTERS, 0)
    counters["step"] = max(loaded.counts, default=0)
    counters["hysteresis_tracker"] = policy.hysteresis if policy else 0
    scale = policy.init if policy else 1.0
    extra = next((e for e in loaded.extras if e is not None), None)
    if extra is not None:
        counters |= extra["counters"]
        scale = extra["loss_scale"] if policy and policy.dynamic else scale
    for field in PERSISTENT:
        state.words[field] = counters[field.name.lower()]
    state.words[Field.ERROR] = Error.NONE
    state.loss_scale[0] = scale
    state.floats[Field.LOSS_SCALE] = float(state.loss_scale[0])

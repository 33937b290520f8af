"""A checkpoint, checked: read whatever torch's AdamW or ours wrote, refuse the rest."""

import math
import numbers
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lrfused.build import MOMENTS
from lrfused.counts import power
from lrfused.device_state import PERSISTENT
from lrfused.gradients import check_moment
from lrfused.hyperparameters import IN_GROUPS, read_group
from lrfused.options import Slot
from lrfused.plan import usable
from lrfused.saving import KEY, VERSION
from lrfused.schedules import Schedule
from lrfused.schedules.expression import INPUT_DTYPES

if TYPE_CHECKING:
    from lrfused.adamw import AdamW

EXTRA_KEYS = {"counters", "loss_scale", "counts", "products", "schedules", "inputs", "options"}
COUNTERS = tuple(field.name.lower() for field in PERSISTENT)


@dataclass
class Loaded:
    """A checked checkpoint, in terms of this optimizer's parameters."""

    groups: list[dict[str, Any]]
    states: dict[Tensor, dict[str, Any]]
    counts: list[int]
    products: list[Tensor]
    extras: list[dict[str, Any] | None]
    schedules: list[dict[Slot, Schedule]]


def check(opt: "AdamW", saved: dict[str, Any], load_schedules: bool) -> Loaded:
    """Read a checkpoint of ours or of torch's AdamW.

    Raises:
        ValueError: it does not fit this optimizer, or a value in it cannot be.
    """
    for key, kind in (("state", dict), ("param_groups", list)):
        if not isinstance(saved.get(key), kind):
            raise ValueError(f"state_dict: {key!r} must be a {kind.__name__}")
    groups, saved_groups = opt.param_groups, saved["param_groups"]
    if len(groups) != len(saved_groups):
        raise ValueError(
            f"state_dict: has {len(saved_groups)} parameter groups, the optimizer {len(groups)}"
        )
    for g, (group, other) in enumerate(zip(groups, saved_groups, strict=True)):
        if not isinstance(other, dict) or not isinstance(other.get("params"), list):
            raise ValueError(f"state_dict: group {g} has no list 'params'")
        if len(group["params"]) != len(other["params"]):
            raise ValueError(
                f"state_dict: group {g} has {len(other['params'])} parameters, "
                f"the optimizer's {len(group['params'])}"
            )
    keys = list(chain.from_iterable(g["params"] for g in saved_groups))
    places = dict(zip(keys, chain.from_iterable(g["params"] for g in groups), strict=True))
    if len(places) != len(keys):
        raise ValueError(f"state_dict: a parameter stands twice in the groups: {keys!r:.80}")
    states = {}
    for key, state in saved["state"].items():
        if key not in places:
            raise ValueError(f"state_dict: state of {key!r:.40} belongs to no parameter")
        if not isinstance(state, dict):
            raise ValueError(f"state_dict: state of parameter {key!r:.40} must be a dictionary")
        states[places[key]] = _check_state(key, places[key], state)
    extras = [_check_extra(opt, g, other) for g, other in enumerate(saved_groups)]
    schedules = [_stored_schedules(opt, extra, load_schedules) for extra in extras]
    new_groups = []
    for g, pair in enumerate(zip(groups, saved_groups, strict=True)):
        new_groups.append(_new_group(g, *pair))
        mirrors = {
            s
            for s, cell in zip(Slot, opt._engine.hyper.rows[g], strict=True)
            if cell.schedule is not None or (load_schedules and s in schedules[g])
        }
        _check_group(g, groups[g], new_groups[g], mirrors)
    counts, products = _check_counts(states, groups, new_groups, extras)
    return Loaded(new_groups, states, counts, products, extras, schedules)


def _new_group(g: int, group: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The group as it will be; what an older checkpoint does not have stays."""
    new = {**group, **deepcopy({k: v for k, v in other.items() if k not in ("params", KEY)})}
    betas = new["betas"]
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise ValueError(f"state_dict: betas of group {g} must be a pair, got {betas!r}")
    new["betas"] = tuple(betas)
    return new


def _check_group(g: int, group: dict[str, Any], new: dict[str, Any], mirrors: set[Slot]) -> None:
    """Refuse values that cannot be; a schedule's mirror is written anew, whatever was stored."""
    for slot in IN_GROUPS:
        value, name = read_group(new, slot), slot.name.lower()
        single = isinstance(value, Tensor) and value.numel() == 1 and value.dtype in INPUT_DTYPES
        if not (single or isinstance(value, numbers.Real)):
            raise ValueError(f"state_dict: {name} of group {g} must be a number, got {value!r:.80}")
        if slot not in mirrors and not usable(slot, _number(value)):
            raise ValueError(f"state_dict: {name} of group {g} cannot be {value!r:.80}")
    lr = group["lr"]
    if isinstance(lr, Tensor) and not _fits(_number(new["lr"]), lr.dtype):
        raise ValueError(f"state_dict: lr of group {g} cannot be {new['lr']!r:.80} in {lr.dtype}")
    for name in ("amsgrad", "maximize"):
        if not isinstance(new[name], bool):
            raise ValueError(
                f"state_dict: {name} of group {g} must be True or False, got {new[name]!r:.80}"
            )


def _number(value: Any) -> float:
    """As a float; nan if it is none."""
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError, NotImplementedError):
        return math.nan


def _fits(value: float, dtype: torch.dtype) -> bool:
    """A tensor of the dtype can be filled with the value."""
    if not (dtype.is_floating_point or math.isfinite(value)):
        return False
    try:
        torch.empty(1, dtype=dtype, device="cpu").fill_(value)
    except RuntimeError:
        return False
    return True


def _check_state(key: Any, param: Tensor, state: Any) -> dict[str, Any]:
    """The state of a parameter, with tensors on its device."""
    if not state:
        return {}
    if missing := {"step", *MOMENTS[:2]} - state.keys():
        raise ValueError(f"state_dict: state of parameter {key} lacks {sorted(missing)}")
    step = state["step"]
    count = _number(step)
    if not (0 <= count < 2**62 and count == math.floor(count)):
        raise ValueError(f"state_dict: step of parameter {key} must be a count, got {step!r:.80}")
    checked: dict[str, Any] = {"step": count}
    for name, value in state.items():
        if name in MOMENTS:
            device = value.device if isinstance(value, Tensor) else param.device
            check_moment(f"state_dict: state of parameter {key}: {name}", value, param, device)
        if name != "step":
            checked[name] = value.to(param.device) if isinstance(value, Tensor) else value
    return checked


def _check_extra(opt: "AdamW", g: int, group: dict[str, Any]) -> dict[str, Any] | None:
    """Our part of a group; None in a checkpoint of torch's."""
    extra = group.get(KEY)
    if extra is None:
        return None
    where = f"state_dict: {KEY!r} of group {g}"
    if not isinstance(extra, dict) or extra.get("version") != VERSION:
        version = extra.get("version") if isinstance(extra, dict) else extra
        raise ValueError(f"{where} must have version {VERSION}, got {version!r:.80}")
    if missing := EXTRA_KEYS - extra.keys():
        raise ValueError(f"{where} lacks {sorted(missing)}")
    try:
        counters = {name: int(extra["counters"][name]) for name in COUNTERS}
        scale = float(extra["loss_scale"])
        counts = [int(count) for count in extra["counts"]]
        products = [(float(a), float(b)) for a, b in extra["products"]]
        inputs = {str(k): float(v) for k, v in extra["inputs"].items()}
        options, schedules = dict(extra["options"]), dict(extra["schedules"])
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise ValueError(f"{where} is damaged: {error!r}") from error
    if not all(-(2**62) < n < 2**62 for n in (*counters.values(), *counts)):
        raise ValueError(f"{where} is damaged: a counter is out of range")
    if min([counters["step"], counters["skipped_steps"], *counts]) < 0:
        raise ValueError(f"{where} is damaged: step and counts must not be negative")
    with np.errstate(over="ignore"):
        if not 0 < np.float32(scale) < math.inf:
            raise ValueError(f"{where}: loss_scale must be a positive float32, got {scale}")
    if not all(0.0 <= product <= 1.0 for pair in products for product in pair):
        raise ValueError(f"{where} is damaged: products of betas must be in [0, 1]")
    for name, tensor in inputs_by_name(opt).items():
        if name in inputs and not _fits(inputs[name], tensor.dtype):
            raise ValueError(f"{where}: input {name} cannot be {inputs[name]} in {tensor.dtype}")
    if len(counts) != len(group["params"]) or len(products) != len(counts):
        raise ValueError(f"{where} has {len(counts)} counts for {len(group['params'])} parameters")
    return {
        "counters": counters,
        "loss_scale": scale,
        "counts": counts,
        "products": products,
        "inputs": inputs,
        "options": options,
        "schedules": schedules,
    }


def _check_counts(
    states: dict[Any, dict[str, Any]],
    groups: list[dict[str, Any]],
    new_groups: list[dict[str, Any]],
    extras: list[dict[str, Any] | None],
) -> tuple[list[int], list[Tensor]]:
    """The count of every parameter, and the products of its betas."""
    counts, products = [], []
    for group, new, extra in zip(groups, new_groups, extras, strict=True):
        for i, param in enumerate(group["params"]):
            count = int(states.get(param, {}).get("step", 0))
            product = [power(_number(beta), count) for beta in new["betas"]]
            # A float32 step is exact only up to 2**24; ours is, if it is the same number.
            if extra is not None and float(np.float32(extra["counts"][i])) == count:
                count, product = extra["counts"][i], extra["products"][i]
            counts.append(count)
            products.append(torch.tensor(product, dtype=torch.float64, device="cpu"))
    return counts, products


def inputs_by_name(opt: "AdamW") -> dict[str, Tensor]:
    """The tensors that the schedules read, by name."""
    programs = opt._engine.hyper.programs
    payloads = [node._payload for _, _, schedule in programs for node in schedule.inputs]
    return {name: tensor for tensor, name in payloads}


def _stored_schedules(
    opt: "AdamW", extra: dict[str, Any] | None, needed: bool
) -> dict[Slot, Schedule]:
    """The stored schedules that can be made with the inputs that there are."""
    made = {}
    for name, data in (extra["schedules"] if extra else {}).items():
        try:
            made[Slot[str(name).upper()]] = Schedule.from_dict(data, inputs_by_name(opt))
        except (KeyError, TypeError, ValueError) as error:
            if needed:
                raise ValueError(f"state_dict: schedule of {name}: {error}") from error
    return made

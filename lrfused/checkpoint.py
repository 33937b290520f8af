"""Checkpoints: torch's state_dict and, under one key a group, what torch has no place for."""

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lrfused.device_state import PERSISTENT, Field
from lrfused.engine import MOMENTS
from lrfused.options import Slot
from lrfused.schedules import Schedule

if TYPE_CHECKING:
    from lrfused.adamw import AdamW

KEY = "lrfused"
VERSION = 1


def state_dict(opt: "AdamW", base: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """torch's dictionary with our key in each group; step counts are copies."""
    extras = [_describe(opt, g) for g in range(len(opt.param_groups))]
    for group, extra in zip(opt.param_groups, extras, strict=True):
        group[KEY] = extra
    try:
        saved = base()
    finally:
        for group in opt.param_groups:
            del group[KEY]
    if "state" in saved:
        # Another optimizer that loads this dictionary must not count in our memory.
        saved["state"] = {
            index: {k: v.clone() if k == "step" else v for k, v in state.items()}
            for index, state in saved["state"].items()
        }
    return saved


def _describe(opt: "AdamW", g: int) -> dict[str, Any]:
    """Numbers, strings, lists and, for long tables, tensors: loads under weights_only."""
    engine = opt._engine
    reading = engine.state(opt.param_groups).read()
    counts, products = engine.counts_of(opt.param_groups[g]["params"], opt.state)
    row = engine.hyper.rows[g]
    schedules = {
        slot.name.lower(): cell.schedule
        for slot, cell in zip(Slot, row, strict=True)
        if cell.schedule is not None and cell.tensor is None
    }
    return {
        "version": VERSION,
        "counters": {field.name.lower(): reading[field] for field in PERSISTENT},
        "loss_scale": reading[Field.LOSS_SCALE],
        "counts": counts,
        "products": products,
        "schedules": {name: schedule.to_dict() for name, schedule in schedules.items()},
        "inputs": {
            node._payload[1]: float(node._payload[0])
            for schedule in schedules.values()
            for node in schedule.inputs
        },
        "options": _options(opt, g),
    }


def _options(opt: "AdamW", g: int) -> dict[str, Any]:
    """The options that a resumed run should share, as plain data."""
    engine = opt._engine
    plain = {**vars(engine.groups[g]), **vars(engine.options)}
    policy = plain.pop("loss_scale")
    if policy is not None:
        plain |= {f"loss_scale.{k}": v for k, v in vars(policy).items()}
    for slot in (Slot.CLIP_VALUE, Slot.AGC, Slot.MAX_GRAD_NORM):
        cell = engine.hyper.rows[g][slot]
        if cell.schedule is None:
            plain[f"{slot.name.lower()}.value"] = cell.value
    return {k: int(v) if isinstance(v, int) else v for k, v in plain.items()}


def load_state_dict(
    opt: "AdamW",
    base: Callable[[dict[str, Any]], None],
    saved: dict[str, Any],
    load_schedules: bool,
) -> None:
    """Load through torch, then put back in place what has to stay where it is."""
    if not saved:
        return
    for group in saved.get("param_groups", []):
        _check(group.get(KEY))
    old_states = {p: dict(state) for p, state in opt.state.items()}
    old_lrs = [group["lr"] for group in opt.param_groups]
    base(saved)
    extras = [group.pop(KEY, None) for group in opt.param_groups]
    for param, state in opt.state.items():
        for key in MOMENTS:
            _keep(state, key, old_states.get(param, {}).get(key))
    for group, lr in zip(opt.param_groups, old_lrs, strict=True):
        if isinstance(lr, Tensor):
            lr.copy_(torch.as_tensor(group["lr"]))
            group["lr"] = lr
    _restore_schedules(opt, extras, load_schedules)
    _restore_counts(opt, extras)
    opt._mirror(reset=True)


def _check(extra: Any) -> None:
    """Refuse what we did not write, before anything changes."""
    if extra is None:
        return
    if not isinstance(extra, dict) or extra.get("version") != VERSION:
        version = extra.get("version") if isinstance(extra, dict) else extra
        raise ValueError(f"state_dict: {KEY!r} must have version {VERSION}, got {version!r:.80}")
    missing = {"counters", "loss_scale", "counts", "products", "schedules", "inputs", "options"}
    if missing := missing - extra.keys():
        raise ValueError(f"state_dict: {KEY!r} lacks {sorted(missing)}")


def _keep(state: dict[str, Any], key: str, old: Tensor | None) -> None:
    """Copy a loaded moment into the memory that is in use, so captured addresses stay valid."""
    new = state.get(key)
    if old is None or new is None or new is old:
        return
    if old.shape == new.shape and old.dtype == new.dtype and old.device == new.device:
        old.copy_(new)
        state[key] = old


def _restore_counts(opt: "AdamW", extras: list[dict[str, Any] | None]) -> None:
    """Counters and loss scale; from torch's checkpoint the largest step, the initial scale."""
    engine = opt._engine
    counts: list[int] = []
    products: list[Tensor] = []
    for group, extra in zip(opt.param_groups, extras, strict=True):
        betas = torch.tensor([float(b) for b in group["betas"]], dtype=torch.float64)
        for i, param in enumerate(group["params"]):
            count = int(opt.state[param]["step"]) if opt.state.get(param) else 0
            product = betas**count
            # A float32 step is exact only up to 2**24; ours is, if it is the same number.
            if extra is not None and float(torch.tensor(float(extra["counts"][i]))) == count:
                count = extra["counts"][i]
                product = torch.tensor(extra["products"][i], dtype=torch.float64)
            counts.append(count)
            products.append(product)
    engine.restore(opt.param_groups, opt.state, counts, products)
    state = engine.state(opt.param_groups)
    extra = next((e for e in extras if e is not None), None)
    policy = engine.options.loss_scale
    counters = dict.fromkeys((f.name.lower() for f in PERSISTENT), 0)
    counters["step"] = max(counts, default=0)
    counters["hysteresis_tracker"] = policy.hysteresis if policy else 0
    scale = policy.init if policy else 1.0
    if extra is not None:
        counters |= extra["counters"]
        scale = extra["loss_scale"] if policy and policy.dynamic else scale
    for field in PERSISTENT:
        state.words[field] = counters[field.name.lower()]
    state.loss_scale[0] = scale
    state.floats[Field.LOSS_SCALE] = float(state.loss_scale[0])


def _restore_schedules(
    opt: "AdamW", extras: list[dict[str, Any] | None], load_schedules: bool
) -> None:
    """Inputs get their values back; differing schedules and options are loaded or warned of."""
    hyper = opt._engine.hyper
    inputs = {
        node._payload[1]: node._payload[0]
        for _, _, schedule in hyper.programs
        for node in schedule.inputs
    }
    different = []
    for g, extra in enumerate(extras):
        if extra is None:
            continue
        for name, value in extra["inputs"].items():
            if name in inputs:
                inputs[name].fill_(value)
        for slot, cell in zip(Slot, hyper.rows[g], strict=True):
            name = slot.name.lower()
            stored = _stored_schedule(extra["schedules"].get(name), inputs, load_schedules)
            if stored == (cell.schedule if cell.tensor is None else None):
                continue
            if load_schedules and isinstance(stored, Schedule):
                hyper.replace(g, slot, stored)
            else:
                different.append(f"{name} of group {g}")
        now = _options(opt, g)
        different += [
            f"{k} of group {g}" for k, v in extra["options"].items() if now.get(k, v) != v
        ]
    if different:
        warnings.warn(
            f"load_state_dict: the checkpoint was written with other values of "
            f"{', '.join(different)}; those of this optimizer are kept",
            stacklevel=4,
        )


def _stored_schedule(
    data: dict[str, Any] | None, inputs: dict[str, Tensor], needed: bool
) -> Schedule | str | None:
    """The stored schedule; a text that equals none where it cannot be made and is not needed."""
    if data is None:
        return None
    try:
        return Schedule.from_dict(data, inputs)
    except ValueError:
        if needed:
            raise
        return "unknown"

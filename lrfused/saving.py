"""Saving: torch's state_dict and, under one key a group, what torch has no place for."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lrfused.device_state import PERSISTENT, Field, Reading
from lrfused.options import Slot

if TYPE_CHECKING:
    from lrfused.adamw import AdamW

KEY = "lrfused"
VERSION = 1


def state_dict(opt: "AdamW", base: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """torch's dictionary with our key in each group; step counts are copies."""
    reading = opt._engine.read(opt.param_groups)
    extras = [describe(opt, g, reading) for g in range(len(opt.param_groups))]
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


def describe(opt: "AdamW", g: int, reading: Reading) -> dict[str, Any]:
    """Numbers, strings, lists and, for long tables, tensors: loads under weights_only."""
    engine = opt._engine
    counts, products = engine.state(opt.param_groups).tensors.read(
        opt.param_groups[g]["params"], opt.state
    )
    row = engine.hyper.rows[g]
    schedules = {
        slot.name.lower(): cell.schedule
        for slot, cell in zip(Slot, row, strict=True)
        if cell.schedule is not None
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
        "options": plain_options(opt, g),
    }


def plain_options(opt: "AdamW", g: int) -> dict[str, Any]:
    """The options that a resumed run should share, as plain data."""
    engine = opt._engine
    plain = {**vars(engine.groups[g]), **vars(engine.options)}
    for name in ("amsgrad", "maximize"):  # torch's group has them
        del plain[name]
    policy = plain.pop("loss_scale")
    if policy is not None:
        plain |= {f"loss_scale.{k}": v for k, v in vars(policy).items()}
    for slot in (Slot.CLIP_VALUE, Slot.AGC, Slot.MAX_GRAD_NORM):
        cell = engine.hyper.rows[g][slot]
        if cell.schedule is None:
            plain[f"{slot.name.lower()}.value"] = cell.value
    return {k: int(v) if isinstance(v, int) else v for k, v in plain.items()}

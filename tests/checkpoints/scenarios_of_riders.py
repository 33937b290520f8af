"""The scenarios of riders: averages by group, and masks that change, of every kind of optimizer."""

from dataclasses import replace
from typing import Any

from lib.optimizers import FIRST, KINDS, Kind

from lrfused import schedules

from .scenarios import EVERYWHERE, Scenario, warmup
from .scenarios_of_others import slug

# ZeroRedundancyOptimizer takes parameters of one dtype only; for FSDP1 see limits.py.
OF_ONE_DTYPE = ("fsdp1", "zero")
OF_TWO_DTYPES = tuple(setting for setting in EVERYWHERE if setting != "zero")
# Set before the first step and between steps; taken away before the checkpoint and after it.
MASKS = {0: ("set", "", "set"), 3: ("set", "set", "take"), 7: ("take", "set", "set")}


def averages(rarely: int) -> dict[str, Any]:
    """Averages of the weights with a decay that moves."""
    return {"ema_decay": schedules.linear(0.5, 0.9, 12), "ema_update_every": rarely}


def riders_of(kind: Kind) -> Scenario:
    """No averages in the first group, those of bfloat16 in the second; in the third the parameters
    have averages before the checkpoint and their first gradient after it."""

    def group() -> dict[str, Any]:
        return {"lr": warmup(0.02), **kind.scheduled, **kind.carrying}

    return Scenario(
        "riders" if kind is FIRST else f"riders-{slug(kind)}",
        groups=(group, lambda: {**group(), **averages(3)}, lambda: {**group(), **averages(1)}),
        late=7,
        events={1: "found_inf", 8: "found_inf"},
        masks=MASKS,
        settings=OF_TWO_DTYPES,
        halved=1,
        metrics={"steps": 8, "skipped_steps": 2},
        kind=kind,
    )


def of_one_dtype(riders: Scenario) -> Scenario:
    """The same without bfloat16."""
    name = riders.name.replace("riders", "riders-float32")
    return replace(riders, name=name, halved=None, settings=OF_ONE_DTYPE)


def unmasked(riders: Scenario) -> Scenario:
    """The same, loaded where there was no mask."""
    return replace(riders, name=riders.name.replace("riders", "riders-unmasked"), unmasked=True)


EVERY = tuple(map(riders_of, KINDS))
FLOAT32 = tuple(map(of_one_dtype, EVERY))
UNMASKED = (unmasked(EVERY[0]), unmasked(FLOAT32[0]))
RIDERS = (*EVERY, *FLOAT32, *UNMASKED)

"""The scenarios of every kind of optimizer beside the first: what each may have to carry."""

from typing import Any

from lib.optimizers import FIRST, KINDS, Kind

from .scenarios import (
    GROWING,
    REPLICATED,
    SKIPS,
    Options,
    Scenario,
    clipped,
    loss_scale,
    warmup,
    with_input,
)


def everything_of(kind: Kind) -> Scenario:
    """All that a checkpoint of another kind of optimizer may have to carry.

    The last block's first two steps are skipped: it has state, but no update.
    """

    def group() -> dict[str, Any]:
        return {"lr": warmup(0.02), **kind.scheduled, **kind.carrying}

    return Scenario(
        f"everything-{slug(kind)}",
        groups=(lambda: {**group(), **with_input()}, group, lambda: {"lr": warmup(0.3)}),
        late=3,
        events=SKIPS,
        metrics={"steps": 5, "skipped_steps": 5},
        kind=kind,
    )


def measured_of(kind: Kind) -> Scenario:
    """The same with all that depends on all gradients."""
    return Scenario(
        f"everything-measured-{slug(kind)}",
        lambda: {**clipped(), **loss_scale(), **kind.widest},
        groups=(lambda: {**kind.scheduled, **with_input()}, lambda: {"lr": warmup(0.3)}),
        settings=REPLICATED,
        late=2,
        events={**GROWING, 3: "large", 6: "large"},
        metrics={"steps": 6, "skipped_steps": 4, "clipped_steps": 2},
        scales=(4.0, 8.0, 8.0, 8.0, 8.0),
        kind=kind,
    )


def exchanged_of(kind: Kind) -> tuple[Scenario, Scenario]:
    """Between ours and torch's, or what stands for torch's; what ways do is AdamW's to show."""

    def numbers(lr: float) -> Options:
        return lambda: {"lr": lr, **kind.numbers}

    def scheduled() -> dict[str, Any]:
        return {**kind.numbers, "lr": warmup(0.02)}

    groups = (numbers(0.02), numbers(0.005))
    return (
        Scenario(
            f"torch-to-ours-{slug(kind)}",
            groups=groups,
            settings=("plain", "zero") if kind.has_state else ("plain",),
            late=2,
            classes=("torch", "lrfused"),
            later_groups=(scheduled,) * 2,
            written_lr=warmup(0.02),
            kind=kind,
        ),
        Scenario(
            f"ours-to-torch-{slug(kind)}",
            groups=groups,
            settings=("plain",),
            late=2,
            classes=("lrfused", "torch"),
            kind=kind,
        ),
    )


def slug(kind: Kind) -> str:
    """Its name among the names of cells."""
    return kind.name.replace(" ", "-")


OTHERS = [kind for kind in KINDS if kind is not FIRST]
EVERYTHING = tuple(map(everything_of, OTHERS))
MEASURED = tuple(map(measured_of, OTHERS))
EXCHANGED = tuple(scenario for kind in OTHERS for scenario in exchanged_of(kind))

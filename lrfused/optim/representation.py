"""repr() of an optimizer: torch's groups, schedules, options that are not the default."""

from collections.abc import Iterator
from typing import Any

from lrfused.engine.bookkeeping import Bookkeeping
from lrfused.groups.shared_counters import KEYS
from lrfused.groups.text import COMMON, described_options, usual_options
from lrfused.rules import UpdateRule
from lrfused.settings.cells import Settings
from lrfused.settings.options import Options
from lrfused.settings.slots import Slot, optional_slot


def representation(name: str, books: Bookkeeping, groups: list[dict[str, Any]]) -> str:
    """torch's repr, plus schedules and this package's options."""
    text = f"{name} ("
    for g, group in enumerate(groups):
        shown = {k: v for k, v in group.items() if k not in ("params", *KEYS)}
        settings = books.known.settings_of(group)
        own = {} if settings is None else dict(_given(books.rule, settings, books.options))
        shown |= {k: v for k, v in own.items() if k not in COMMON}
        text += f"\nParameter Group {g}\n" + _lines(shown)
        if g == len(groups) - 1:
            text += _lines({k: v for k, v in own.items() if k in COMMON}, "All groups\n")
    return text + ")"


def _given(rule: UpdateRule, settings: Settings, options: Options) -> Iterator[tuple[str, Any]]:
    """The schedules, and the options that are not the default."""
    schedules: dict[Slot | None, Any]
    schedules = {slot: cell.schedule for slot, cell in zip(Slot, settings.cells, strict=True)}
    for slot, cell in zip(Slot, settings.cells, strict=True):
        schedule = cell.schedule
        if schedule is not None:
            is_shown = slot.is_optional  # here only, torch's groups do not have it
            yield slot.argument if is_shown else f"{slot.argument} follows", schedule
    usual = usual_options(rule)
    for name, value in described_options(rule, settings, options).items():
        if name == "loss_scale" and options.loss_scale is not None:
            yield name, options.loss_scale if options.loss_scale.dynamic else value
        elif usual.get(name) != value and schedules.get(optional_slot(name)) is None:
            yield name, value


def _lines(shown: dict[str, Any], title: str = "") -> str:
    lines = "".join(f"    {key}: {shown[key]}\n" for key in sorted(shown))
    return title + lines if lines else ""

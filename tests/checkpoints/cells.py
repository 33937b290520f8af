"""Which settings, carriers and scenarios meet, and which of that is slow.

Names alone: nothing of torch.distributed is imported here.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from lib.optimizers import FIRST

from . import scenarios, scenarios_of_others, scenarios_of_riders
from .scenarios import Scenario

MEMORY = ("memory", "flattened", "full")
RANKS = ("offloaded", "broadcast")
DISK = ("disk", "disk-flattened", "disk-partial", "disk-flattened-partial")
FSDP1 = (*MEMORY, *RANKS, "disk", "disk-flattened", "disk-partial", "fsdp-sharded", "fsdp-full")
CARRIED = {
    "plain": ("file", *MEMORY, *DISK),
    "replicated": (*MEMORY, *RANKS, *DISK),
    "fsdp2": (*MEMORY, *RANKS, *DISK),
    "fsdp1": FSDP1,
    "fsdp1flat": FSDP1,
    "fsdp1whole": FSDP1,
    "zero": ("consolidated",),
}
# By default everything at once goes every way; what alone shows one part of that goes two ways, and
# what cannot be among everything a few more. All the others run with the slow tests.
TWO = ("plain-file", "plain-disk-flattened")
FEW = (*TWO, "plain-full", "replicated-disk", "fsdp2-disk-flattened", "zero-consolidated")
FEW += ("fsdp1flat-memory",)
PARTS = ("numbers", "amsgrad", "schedules", "input", "skips", "late", "products", "clips")
PARTS += ("scale-growing",)
# Riders: each way of a state's tensors once.
WITH_RIDERS = ("plain-file", "plain-flattened", "replicated-broadcast", "fsdp2-disk-flattened")
WITH_RIDERS += ("fsdp1-fsdp-full", "fsdp1flat-memory", "zero-consolidated")
RIDERS_OF_OTHERS = ("plain-flattened",)
UNMASKED = ("plain-file", "plain-disk")
# Of torch's own class: one way in each setting, and where its limits are.
OF_TORCH = ("replicated-broadcast", "fsdp2-disk-flattened", "fsdp1-offloaded", "fsdp1-memory")
OF_TORCH += ("fsdp1flat-disk", "zero-consolidated")
# Of other kinds of optimizers between the classes.
BETWEEN = ("file", "memory")
# Into what is loaded, and whether metrics() are looked at before the first step that follows.
INTO = {"fresh": True, "used": False}
INTO_UNSEEN = {"fresh": True, "fresh-unseen": False, "used": False, "used-seen": True}


@dataclass(frozen=True)
class Job:
    """One checkpoint, which is loaded into several optimizers: a cell each."""

    setting: str
    carrier: str
    scenario: Scenario

    @property
    def name(self) -> str:
        """Of the cells, but for what is loaded into."""
        return f"{self.setting}-{self.carrier}-{self.scenario.name}"

    @property
    def into(self) -> dict[str, bool]:
        """ZeRO does not tell the optimizer that something was loaded."""
        return INTO_UNSEEN if self.setting == "zero" else INTO

    @property
    def cells(self) -> list[str]:
        """The names of its cells, of all that there are."""
        return [f"{self.scenario.classes[1]}:{self.name}-{into}" for into in self.into]

    def is_short(self) -> bool:
        """It runs by default."""
        name, way = self.scenario.name, f"{self.setting}-{self.carrier}"
        if self.setting == "fsdp1whole":
            return name == "everything-measured" and self.carrier in ("memory", "disk", "fsdp-full")
        if name.startswith("riders"):
            short = WITH_RIDERS if self.scenario.kind is FIRST else RIDERS_OF_OTHERS
            return way in (UNMASKED if self.scenario.unmasked else short)
        if self.scenario.kind is not FIRST:
            is_exchange = self.scenario in scenarios_of_others.EXCHANGED
            return is_exchange or way in (
                FEW if self.scenario in scenarios_of_others.EVERYTHING else TWO
            )
        if self.scenario in scenarios.EVERYTHING:
            return self.setting == "plain" or way == "fsdp2-disk-partial" or "partial" not in way
        if self.scenario in scenarios.EXCHANGED:
            return self.setting in ("plain", "zero") or way == "fsdp2-disk-partial"
        if self.scenario.classes == scenarios.TORCH and name == "everything":
            return self.setting == "plain" or way in OF_TORCH
        if name.endswith("not-yet") and self.setting == "plain":
            return True
        if name == "sampled":
            return way == "plain-file"
        return way in (TWO if name in PARTS else FEW)


def jobs(chosen: Iterable[Scenario]) -> list[Job]:
    """Each scenario in its settings, by every carrier that there is."""
    return [
        Job(setting, carrier, scenario)
        for scenario in chosen
        for setting in scenario.settings
        for carrier in CARRIED[setting]
    ]


OURS = jobs((*scenarios.EVERYTHING, *scenarios.OURS, *scenarios.OTHERWISE))
OURS += jobs((*scenarios_of_others.EVERYTHING, *scenarios_of_others.MEASURED))
OURS += jobs(scenarios_of_riders.RIDERS)
TORCHS = jobs(scenarios.TORCHS)
EXCHANGED = jobs(scenarios.EXCHANGED)
EXCHANGED += [job for job in jobs(scenarios_of_others.EXCHANGED) if job.carrier in BETWEEN]
ALL = (*OURS, *TORCHS, *EXCHANGED)

"""Which settings, carriers and scenarios meet, and which of that is slow.

Names alone: nothing of torch.distributed is imported here.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from . import scenarios
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
    "zero": ("consolidated",),
}
# What alone shows one thing goes these ways; the others, which carry everything at once as well,
# run with the slow tests.
SHORT = (
    r"everything|(plain-(file|full|disk)|replicated-disk|fsdp2-disk-flattened|zero-consolidated"
    r"|fsdp1flat-memory)-(?!sampled)|(plain-file|fsdp2-disk)-sampled|plain-.*-not-yet"
)
EXCHANGED_SHORT = r"(plain|fsdp2|replicated)-.*disk-partial|plain|zero"
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
        saves, loads = self.scenario.classes
        return bool(re.match(SHORT if saves == loads else EXCHANGED_SHORT, self.name)) or (
            self.scenario.name.startswith("everything")
        )


def jobs(chosen: Iterable[Scenario]) -> list[Job]:
    """Each scenario in its settings, by every carrier that there is."""
    return [
        Job(setting, carrier, scenario)
        for scenario in chosen
        for setting in scenario.settings
        for carrier in CARRIED[setting]
    ]


OURS = jobs((*scenarios.EVERYTHING, *scenarios.OURS, *scenarios.OTHERWISE))
TORCHS = jobs(scenarios.TORCHS)
EXCHANGED = jobs(scenarios.EXCHANGED)
ALL = (*OURS, *TORCHS, *EXCHANGED)

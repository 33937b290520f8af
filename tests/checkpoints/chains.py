"""Which checkpoints go from one number of ranks to another. Names alone, as in cells.py."""

from dataclasses import dataclass

from . import scenarios, scenarios_of_others, scenarios_of_riders
from .scenarios import Scenario


@dataclass(frozen=True)
class Chain:
    """Training in shards of FSDP2 that goes on with other numbers of ranks: one cell."""

    carrier: str
    scenario: Scenario
    worlds: tuple[int, ...]

    @property
    def name(self) -> str:
        """What it is."""
        worlds = "-".join(map(str, self.worlds))
        return f"ranks-{worlds}-{self.carrier}-{self.scenario.name}"

    @property
    def cells(self) -> list[str]:
        """The only one."""
        return [f"{self.scenario.classes[1]}:{self.name}"]


OURS, TORCHS = scenarios.EVERYTHING[0], scenarios.TORCHS[0]
RIDERS = scenarios_of_riders.EVERY[0]
OF_TWO = [
    Chain("disk", OURS, (2, 1)),
    Chain("disk-flattened", OURS, (1, 2)),
    Chain("offloaded", OURS, (2, 1)),
    Chain("disk", TORCHS, (2, 1)),
    *(Chain("disk", scenario, (2, 1)) for scenario in scenarios_of_others.EVERYTHING),
    Chain("disk", RIDERS, (2, 1)),
    Chain("disk-flattened", RIDERS, (1, 2)),
]
OF_FOUR = [
    Chain(carrier, scenario, (2, 4, 1))
    for scenario in (OURS, TORCHS, RIDERS)
    for carrier in ("disk", "disk-flattened", "disk-partial", "offloaded")
]
ALL = (*OF_TWO, *OF_FOUR)

"""Which checkpoints go from one number of ranks to another. Names alone, as in cells.py."""

from dataclasses import dataclass

from . import scenarios
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
CARRIERS = ("disk", "disk-flattened", "disk-partial", "offloaded")
OF_TWO = [
    Chain(carrier, scenario, worlds)
    for scenario in (OURS, TORCHS)
    for carrier in CARRIERS
    for worlds in ((2, 1), (1, 2))
]
OF_FOUR = [
    Chain(carrier, scenario, (2, 4, 1)) for scenario in (OURS, TORCHS) for carrier in CARRIERS
]
ALL = (*OF_TWO, *OF_FOUR)

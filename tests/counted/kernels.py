"""The kernels of the built module, each once: of few and many gradients if they differ."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lib import machine_code

from counted.chips import CHIPS, Resident, resident

ROOT = Path(__file__).resolve().parents[2]
RULES = {"AdamW": "AdamW", "SGD": "Sgd", "Lion": "Lion"}  # titles, and the names in the sources


@dataclass(frozen=True)
class Kernel:
    """One for one architecture."""

    title: str
    capacity: str  # FEW, MANY, or both where they are alike
    function: machine_code.Function

    @property
    def threads(self) -> int:
        return threads_of_blocks()["MEASURE" if "measure" in self.title else "APPLY"]

    @property
    def shared(self) -> int:
        """Without what the system keeps of every block: on newer chips the listing has it, too."""
        kept = CHIPS[self.function.architecture].reserved
        return self.function.shared - kept * (self.function.architecture >= 90)

    @property
    def resident(self) -> Resident:
        code = self.function
        return resident(CHIPS[code.architecture], code.registers, self.shared, self.threads)


def module() -> Path | None:
    """lrfused._cuda, if it was built."""
    return next((ROOT / "lrfused").glob("_cuda.*.so"), None)


def compiler(binary: Path) -> str:
    """The release that made a module: its machine code has it in notes."""
    found = re.search(rb"Cuda compilation tools, (release [\d.]+, V[\d.]+)", binary.read_bytes())
    return found[1].decode() if found else "unknown"


def threads_of_blocks() -> dict[str, int]:
    """As the sources say."""
    text = (ROOT / "csrc" / "cuda" / "table.h").read_text(encoding="utf-8")
    return {name: int(n) for name, n in re.findall(r"\b(\w+)_THREADS = (\d+)", text)}


def title_of(name: str) -> str:
    rule = next((title for title, own in RULES.items() if f"{len(own)}{own}E" in name), None)
    return f"apply, {rule}" if rule else "measure and plan"


def kernels(binary: Path) -> Iterator[Kernel]:
    """In the order of their names and architectures."""
    found: dict[tuple[str, int], list[tuple[int, machine_code.Function]]] = {}
    for function in machine_code.functions(binary):
        capacity = re.search(r"Li(\d+)E", function.name)
        if capacity:
            key = (title_of(function.name), function.architecture)
            found.setdefault(key, []).append((int(capacity[1]), function))
    for (title, _), both in sorted(found.items(), key=lambda item: (item[0][0][0] != "m", item[0])):
        (_, few), (_, many) = sorted(both, key=lambda one: one[0])
        if _usage(few) == _usage(many):
            yield Kernel(title, "both", few)
        else:
            yield from (Kernel(title, "FEW", few), Kernel(title, "MANY", many))


def _usage(code: machine_code.Function) -> tuple[int, ...]:
    return code.registers, code.stack, code.shared, code.local

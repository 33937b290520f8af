"""Reading NVIDIA machine code: registers, stack, and the loops of each function."""

import re
import subprocess
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path


def tool(name: str) -> Path:
    """A program of NVIDIA's that comes with Triton."""
    import triton

    return Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name


@dataclass
class Loop:
    """A range of instructions with a branch back to its start, and none such inside."""

    texts: list[str]
    targets: dict[int, int]  # of the branches inside the range, by place

    def count(self, pattern: str) -> int:
        return sum(bool(re.search(pattern, text)) for text in self.texts)

    @cached_property
    def way(self) -> list[str]:
        """The shortest that a turn can take: no rare case of anything."""
        before: dict[int, int] = {}
        steps = {0: 1}  # how many are executed until this one is
        for place, text in enumerate(self.texts[:-1]):
            if place not in steps:
                continue
            following = [self.targets[place]] if place in self.targets else []
            if not re.match(r"(BRA|EXIT|RET)\b", text):
                following.append(place + 1)
            for other in following:
                if not place < other < len(self.texts):
                    continue
                if other not in steps or steps[place] + 1 < steps[other]:
                    steps[other], before[other] = steps[place] + 1, place
        places = [len(self.texts) - 1]
        while places[-1]:
            places.append(before[places[-1]])
        return [self.texts[place] for place in reversed(places)]

    @property
    def shortest(self) -> int:
        """The fewest instructions of a turn."""
        return len(self.way)


@dataclass
class Function:
    """One kernel for one architecture."""

    binary: Path
    name: str
    chip: str  # as sm_90a
    registers: int
    stack: int
    shared: int
    local: int  # bytes that registers are spilled to

    @property
    def architecture(self) -> int:
        return int(re.sub(r"\D", "", self.chip))

    @cached_property
    def sass(self) -> str:
        """The listing, disassembled when it is first wanted: all of a module takes a while."""
        listing = _dump(self.binary, "-sass", "-arch", self.chip, "-fun", self.name)
        return listing.split("Function : ")[1]

    @cached_property
    def loops(self) -> list[Loop]:
        return loops_of(self.sass)

    def before(self, pattern: str) -> list[str]:
        """What can be executed before an instruction that matches, by whatever way."""
        code = instructions(self.sass)
        places = {address: i for i, (address, _) in enumerate(code)}
        seen, waiting = set(), [0]
        while waiting:
            place = waiting.pop()
            text = code[place][1]
            if place in seen or re.search(pattern, text):
                continue
            seen.add(place)
            assert not re.search(r"\bBR[XU]", text), f"a branch to anywhere: {text}"
            waiting += [
                places[int(to, 16)]
                for to in re.findall(r"0x([0-9a-f]+)$", text)
                if re.search(r"\b(BRA|BSSY|CALL|BREAK)\b", text)
            ]
            if not re.match(r"(BRA|EXIT|RET)\b", text):
                waiting.append(place + 1)
        return [code[place][1] for place in sorted(seen)]


def instructions(sass: str) -> list[tuple[int, str]]:
    """Address and text of each in a listing."""
    code = re.findall(r"/\*([0-9a-f]{4,6})\*/\s+(.*?)\s*;", sass)
    return [(int(address, 16), text) for address, text in code]


def loops_of(sass: str, around: str = "") -> list[Loop]:
    """The innermost loops of a listing, or of those with an instruction that matches."""
    code = instructions(sass)
    places = {address: i for i, (address, _) in enumerate(code)}
    texts = [text for _, text in code]
    targets = {}
    for i, text in enumerate(texts):
        target = re.search(r"\bBRA(?:\.\w+)* .*?0x([0-9a-f]+)", text)
        if target and int(target[1], 16) in places:
            targets[i] = places[int(target[1], 16)]
    ranges = [(to, i + 1) for i, to in targets.items() if to < i]
    ranges = [(a, b) for a, b in ranges if any(re.search(around, text) for text in texts[a:b])]
    inner = [
        (a, b)
        for a, b in ranges
        if not any(a <= c and d <= b and (a, b) != (c, d) for c, d in ranges)
    ]
    return [
        Loop(texts[a:b], {i - a: to - a for i, to in targets.items() if a <= i < b})
        for a, b in inner
    ]


@cache
def functions(binary: Path) -> list[Function]:
    """The kernels of an object or a module."""
    found = re.finditer(
        r"arch = (sm_\w+)|Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)",
        _dump(binary, "-res-usage"),
    )
    kernels, chip = [], ""
    for match in found:
        if match[1]:
            chip = match[1]
        else:
            kernels.append(Function(binary, match[2], chip, *map(int, match.group(3, 4, 5, 6))))
    return kernels


def _dump(binary: Path, *options: str) -> str:
    command = [tool("cuobjdump"), *options, binary]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout

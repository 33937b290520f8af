"""What a block waits for before it asks for its first gradient: chains of loads, in PTX.

An instruction is read once, after all that may come before it, but for the ends of loops. A
register's chain is the longest of the chains that its operands have, and a load from global memory
is one more link of it. What is read from shared memory has the chain of what was stored at that
place. Parameters of the kernel are no links: they are constants. With `orders` whatever comes after
a branch or a barrier waits for that, too: for what decides about the branch, and for all that was
stored to shared memory before the barrier.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ptx.grammar import Function, Instruction, Module

from counted import flow

Chain = tuple[Instruction, ...]
ADDRESS = re.compile(r"\[([%\w$]+)\+?(-?\d+)?\]")
NO_RESULT = ("st.", "bra", "bar", "ret", "exit", "red.", "prefetch", "membar", "griddepcontrol")


@dataclass
class Reader:
    """The chains of all that has been read so far; ``skipped`` are instructions not to count."""

    skipped: Callable[[Instruction], bool] = lambda one: False
    chains: dict[str, Chain] = field(default_factory=dict)
    places: dict[str, tuple[str, int]] = field(default_factory=dict)  # registers that are addresses
    shared: dict[tuple[str, int], Chain] = field(default_factory=dict)
    orders: bool = False
    before: Chain = ()  # what branches and barriers so far have waited for

    def read(self, one: Instruction) -> None:
        if self.skipped(one):
            return
        if one.opcode.startswith(("bar.sync", "barrier")):
            self.wait(*self.shared.values())
        elif one.opcode.startswith(("bra", "brx")):
            self.wait(self.of((one.guard, *one.operands)))
        elif one.opcode.startswith("st.shared"):
            self.shared[self.place(one.operands[0])] = self.of(one.operands)
        elif not one.opcode.startswith(NO_RESULT) and one.operands:
            self.result(one)

    def wait(self, *chains: Chain) -> None:
        if self.orders:
            self.before = _longest([self.before, *chains])

    def result(self, one: Instruction) -> None:
        sources = one.operands[1:]
        chain = self.of(sources)
        if one.opcode.startswith("ld.shared"):
            chain = _longest([chain, self.shared.get(self.place(sources[0]), ())])
        elif one.opcode.startswith("ld.global"):
            chain = (*_longest([chain, self.before]), one)
        for name in _registers(one.operands[0]):
            # Of a register that is written on several ways, the longest.
            self.chains[name] = _longest([self.chains.get(name, ()), chain])
        self.follow(one)

    def follow(self, one: Instruction) -> None:
        """Where a register points to, if that is a variable and a number."""
        target, *sources = one.operands
        if one.opcode.startswith(("mov.", "cvta.")) and len(sources) == 1:
            name = sources[0]
            if name in self.places or re.match(r"[_$a-zA-Z]", name):
                self.places[target] = self.places.get(name, (name, 0))
        elif one.opcode.startswith("add.") and sources[0] in self.places:
            variable, offset = self.places[sources[0]]
            if re.fullmatch(r"-?\d+", sources[1]):
                self.places[target] = (variable, offset + int(sources[1]))

    def place(self, operand: str) -> tuple[str, int]:
        """Of an address such as [%r1+8] or [tile+8]."""
        found = ADDRESS.match(operand)
        name, offset = (found[1], int(found[2] or 0)) if found else (operand, 0)
        variable, more = self.places.get(name, (name, 0))
        return variable, offset + more

    def of(self, operands: tuple[str, ...]) -> Chain:
        return _longest([self.chains.get(name, ()) for x in operands for name in _registers(x)])


def _registers(operand: str) -> list[str]:
    return re.findall(r"%[\w$]+", operand)


def _longest(chains: list[Chain]) -> Chain:
    return max(chains, key=len, default=())


def chain_to(
    function: Function,
    is_wanted: Callable[[Instruction], bool],
    skipped: Callable[[Instruction], bool] = lambda one: False,
    orders: bool = False,
) -> Chain:
    """The loads that the first wanted load waits for, the first one first.

    Raises:
        ValueError: no load is wanted.
    """

    def is_target(one: Instruction) -> bool:
        return one.opcode.startswith("ld.global") and not skipped(one) and is_wanted(one)

    blocks = flow.blocks_of(function)
    in_order = flow.order(blocks)
    target = next((n for n in in_order if any(map(is_target, blocks[n].instructions))), None)
    if target is None:
        raise ValueError(f"{function.name}: no such load")
    leading = flow.leading_to(blocks, [target])
    reader = Reader(skipped, orders=orders)
    for number in (n for n in in_order if n in leading):
        for one in blocks[number].instructions:
            if number == target and is_target(one):
                return _longest([reader.of(one.operands[1:]), reader.before])
            reader.read(one)
    raise AssertionError("the target leads to itself")


@dataclass
class Sources:
    """The lines that instructions were made of."""

    module: Module
    files: dict[int, tuple[str, list[str]]] = field(default_factory=dict)  # name and lines

    def texts(self, one: Instruction) -> Iterator[tuple[str, str]]:
        """File and line, of the place itself and of its callers, that first."""
        for number, line in one.source:
            if number not in self.files:
                path = Path(self.module.files[number])
                text = path.read_text(encoding="utf-8", errors="replace")
                self.files[number] = path.name, [part.strip() for part in text.splitlines()]
            name, lines = self.files[number]
            yield name, lines[line - 1]

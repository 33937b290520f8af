"""Ways through a function of PTX: in which order its instructions can come."""

from collections.abc import Collection
from dataclasses import dataclass, field

from ptx.grammar import Function, Instruction, Label


@dataclass
class Block:
    """Instructions that are executed one after the other, and the blocks that may follow."""

    instructions: list[Instruction] = field(default_factory=list)
    following: list[int] = field(default_factory=list)


def blocks_of(function: Function) -> list[Block]:
    """By number, the entry first."""
    found, labels = [Block()], {}
    for one in function.body:
        if isinstance(one, Label):
            if found[-1].instructions:
                found.append(Block())
            labels[one.name] = len(found) - 1
        else:
            found[-1].instructions.append(one)
            if one.opcode.startswith(("bra", "brx", "ret", "exit")):
                found.append(Block())
    for number, block in enumerate(found):
        last = block.instructions[-1] if block.instructions else None
        if last is not None and last.opcode.startswith("bra"):
            block.following.append(labels[last.operands[0]])
        if last is not None and last.opcode.startswith("brx"):
            block.following += [labels[name] for name in function.tables[last.operands[-1]]]
        ends = last is not None and last.opcode.startswith(("bra", "brx", "ret", "exit"))
        if number + 1 < len(found) and not (last is not None and ends and not last.guard):
            block.following.append(number + 1)
    return found


def order(blocks: list[Block]) -> list[int]:
    """Blocks so that each comes after all that lead to it, but for the ends of loops."""
    done: list[int] = []
    seen, waiting = {0}, [(0, iter(blocks[0].following))]
    while waiting:
        number, following = waiting[-1]
        nearest = next((other for other in following if other not in seen), None)
        if nearest is None:
            done.append(number)
            waiting.pop()
        else:
            seen.add(nearest)
            waiting.append((nearest, iter(blocks[nearest].following)))
    return done[::-1]


def leading_to(blocks: list[Block], targets: Collection[int]) -> set[int]:
    """Those from which one of some blocks can be reached."""
    before: dict[int, list[int]] = {}
    for number, block in enumerate(blocks):
        for other in block.following:
            before.setdefault(other, []).append(number)
    found, waiting = set(targets), list(targets)
    while waiting:
        for other in before.get(waiting.pop(), []):
            if other not in found:
                found.add(other)
                waiting.append(other)
    return found

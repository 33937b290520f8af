"""The readable formula of a schedule."""

from collections import Counter
from collections.abc import Iterator
from itertools import count

from lrfused.schedules.bytecode import Op
from lrfused.schedules.nodes import CONSTANT, INPUT, STEP, Node, nodes_in_order

# Symbol, precedence, and whether the left operand needs brackets at equal precedence. The right one
# does, except for powers: the order of roundings is part of the value.
INFIX: dict[Op, tuple[str, int, bool]] = {
    Op.LESS: (" < ", 1, True),
    Op.LESS_EQUAL: (" <= ", 1, True),
    Op.EQUAL: (" == ", 1, True),
    Op.ADD: (" + ", 2, False),
    Op.SUB: (" - ", 2, False),
    Op.MUL: (" * ", 3, False),
    Op.DIV: (" / ", 3, False),
    Op.MOD: (" % ", 3, False),
    Op.POW: ("**", 4, True),
}
ATOM = 9
MAX_OPERATIONS = 48
NAMES = "xyzuvwabcdefghijklmnopqrst"


def formula(schedule: Node) -> str:
    """The expression in ordinary notation, with shared parts named after a "where".

    Only the number of instructions if the expression is too long to read.
    """
    order = nodes_in_order(schedule)
    operations = [node for node in order if node._arguments]
    if len(operations) > MAX_OPERATIONS:
        return f"{len(operations)} instructions"
    uses = Counter(id(a) for node in order for a in node._arguments)
    shared = [node for node in operations if uses[id(node)] > 1 and node is not schedule]
    names: dict[int, str] = {}
    definitions = []
    for name, node in zip(_names(), shared, strict=False):
        definitions.append(f"{name} = {_render(node, names)[0]}")
        names[id(node)] = name
    text = _render(schedule, names)[0]
    return f"{text} where {', '.join(definitions)}" if definitions else text


def _names() -> Iterator[str]:
    """x, y, z, u, ... and then x1, x2, ..."""
    yield from NAMES
    for i in count(1):
        yield f"x{i}"


def _render(node: Node, names: dict[int, str]) -> tuple[str, int]:
    """The text and its precedence."""
    if id(node) in names:
        return names[id(node)], ATOM
    if node._kind == STEP:
        return "step", ATOM
    if node._kind == CONSTANT:
        text = f"{node._payload:.12g}"
        return text, 0 if text.startswith("-") else ATOM
    if node._kind == INPUT:
        return f"input({node._payload[1]!r})", ATOM
    if node._kind == Op.TABLE:
        position, _ = _render(node._arguments[0], names)
        return f"table[{len(node._payload)}]({position})", ATOM
    if node._kind in INFIX:
        symbol, precedence, bracket_left = INFIX[node._kind]
        left = _bracketed(node._arguments[0], names, precedence, bracket_left)
        right = _bracketed(node._arguments[1], names, precedence, node._kind != Op.POW)
        return f"{left}{symbol}{right}", precedence
    arguments = ", ".join(_render(a, names)[0] for a in node._arguments)
    return f"{Op(node._kind).name.lower()}({arguments})", ATOM


def _bracketed(node: Node, names: dict[int, str], precedence: int, at_equal: bool) -> str:
    text, inner = _render(node, names)
    return f"({text})" if inner < precedence or (at_equal and inner == precedence) else text

"""The nodes of an expression: their kinds, their order, when two are equal.

An expression may be as deep as its limit and share parts many times: each node is visited once, and
nothing here recurses.
"""

import struct
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from lrfused.schedules.expression import Schedule

# A leaf's kind is one of these strings; every other node's kind is an Op. A variable is a register
# that whoever evaluates fills: its payload is the place among all that there are.
STEP, CONSTANT, INPUT, VARIABLE = "step", "constant", "input", "variable"

Row = tuple[Any, Any, list[int]]


def nodes_in_order(*roots: "Schedule") -> list["Schedule"]:
    """Every node once, arguments before the nodes that use them.

    Nodes are told apart by identity, not by value: numbers that happen to coincide must not
    change the shape of a program, which is all that is ever compiled for a GPU.
    """
    order: list[Schedule] = []
    seen: set[int] = set()
    stack: list[tuple[Schedule, bool]] = [(root, False) for root in reversed(roots)]
    while stack:
        node, ready = stack.pop()
        if ready:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((a, False) for a in reversed(node._arguments))
    return order


def flattened(root: "Schedule") -> list[Row]:
    """(kind, payload, places of the arguments) of every node, the root's last."""
    order = nodes_in_order(root)
    place = {id(node): i for i, node in enumerate(order)}
    return [(n._kind, n._payload, [place[id(a)] for a in n._arguments]) for n in order]


def equal(x: "Schedule", y: "Schedule") -> bool:
    """The same operations on the same values; parts that are shared are compared once."""
    pairs, seen = [(x, y)], set()
    while pairs:
        x, y = pairs.pop()
        if x is y or (id(x), id(y)) in seen:
            continue
        seen.add((id(x), id(y)))
        if _key(x) != _key(y):
            return False
        pairs.extend(zip(x._arguments, y._arguments, strict=True))
    return True


def _key(node: "Schedule") -> tuple[Any, ...]:
    """What equal nodes have in common, apart from their arguments' own."""
    return (node._hash, node._kind, payload_key(node._payload), len(node._arguments))


def payload_key(payload: Any) -> Any:
    """What two payloads are compared by: bits of floats, bytes of tables, identity of tensors."""
    if isinstance(payload, float):
        return struct.pack("<d", payload)
    if isinstance(payload, np.ndarray):
        return payload.tobytes()
    if isinstance(payload, tuple):
        return (id(payload[0]), payload[1])
    return payload

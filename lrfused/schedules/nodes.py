"""The nodes of an expression: class, kinds, topological order, equality.

Expressions may be deep and share parts many times: each node is visited once, without recursion.
"""

import struct
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from typing_extensions import Self  # typing has it from Python 3.11 on

# A leaf's kind is one of these strings; every other node's kind is an Op. A variable is a register
# that the caller of the program fills; its payload is its index among the variables.
STEP, CONSTANT, INPUT, VARIABLE = "step", "constant", "input", "variable"

MAX_DEPTH = 200

Row = tuple[Any, Any, list[int]]


class Node:
    """An operation on other nodes, or a leaf; immutable.

    All of an expression's nodes are of one class: `lrfused.schedules.expression.Schedule` adds the
    operators and the values.
    """

    __slots__ = ("_arguments", "_depth", "_hash", "_kind", "_payload")

    _kind: Any
    _arguments: "tuple[Self, ...]"
    _payload: Any
    _depth: int
    _hash: int

    def __init__(self, kind: Any, arguments: "tuple[Self, ...]" = (), payload: Any = None):
        depth = 1 + max((a._depth for a in arguments), default=0)
        if depth > MAX_DEPTH:
            raise ValueError(
                f"schedule: the expression is {depth} operations deep, the limit is "
                f"{MAX_DEPTH}; sample it with from_function(fn, steps) instead"
            )
        write = object.__setattr__
        write(self, "_kind", kind)
        write(self, "_arguments", arguments)
        write(self, "_payload", payload)
        write(self, "_depth", depth)
        key = (kind, payload_key(payload), tuple(a._hash for a in arguments))
        write(self, "_hash", hash(key))

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a {type(self).__name__} is immutable: cannot delete {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a {type(self).__name__} is immutable: cannot set {name!r}")


N = TypeVar("N", bound=Node)


def nodes_in_order(*roots: N) -> list[N]:
    """Every node once, arguments before the nodes that use them.

    Nodes are distinguished by identity, not by value: numbers that happen to be equal must not
    change a program's shape, the only part that is compiled for a GPU.
    """
    order: list[N] = []
    is_done: dict[int, bool] = {}  # False: its arguments are above it on the stack
    stack: list[N] = list(reversed(roots))
    while stack:
        node = stack[-1]
        key = id(node)
        if node._arguments and key not in is_done:
            is_done[key] = False
            stack.extend(reversed(node._arguments))
            continue
        stack.pop()
        if not is_done.get(key, False):
            is_done[key] = True
            order.append(node)
    return order


def flattened(root: Node) -> list[Row]:
    """(kind, payload, indices of the arguments) of every node, the root last."""
    order = nodes_in_order(root)
    place = {id(node): i for i, node in enumerate(order)}
    return [(n._kind, n._payload, [place[id(a)] for a in n._arguments]) for n in order]


def equal(x: Node, y: Node) -> bool:
    """True for the same operations on the same values; shared parts are compared once."""
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


def _key(node: Node) -> tuple[Any, ...]:
    """The key of a node's own content, without that of its arguments."""
    return (node._hash, node._kind, payload_key(node._payload), len(node._arguments))


def payload_key(payload: Any) -> Any:
    """The key that compares payloads: bits of floats, bytes of tables, identity of tensors."""
    if isinstance(payload, float):
        return struct.pack("<d", payload)
    if isinstance(payload, np.ndarray):
        return payload.tobytes()
    if isinstance(payload, tuple):
        return (id(payload[0]), payload[1])
    return payload

"""Schedules as plain data: a list of nodes, arguments before the nodes that use them."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lrfused.schedules.bytecode import ARITY, Op
from lrfused.schedules.nodes import CONSTANT, INPUT, STEP, N, Node, nodes_in_order
from lrfused.schedules.operations import apply
from lrfused.schedules.payloads import input_payload, table_payload

VERSION = 1
LONG_TABLE = 64
NAMES: dict[Any, str] = {
    **{leaf: leaf for leaf in (STEP, CONSTANT, INPUT)},
    **{op: op.name.lower() for op in Op},
}


def as_tensor(table: NDArray[np.float64]) -> Any:
    """A long table as `to_dict` has it unless told otherwise: a copy, of the caller's own."""
    return torch.tensor(table, dtype=torch.float64)


def to_dict(
    schedule: Node, long_table: Callable[[NDArray[np.float64]], Any] = as_tensor
) -> dict[str, Any]:
    """{"version", "nodes"}: a node is [kind, payload or None, indices of its arguments].

    ``long_table`` makes the payload of a table with more than 64 entries.
    """
    order = nodes_in_order(schedule)
    tensors: dict[str, torch.Tensor] = {}
    for tensor, name in (node._payload for node in order if node._kind == INPUT):
        if tensors.setdefault(name, tensor) is not tensor:
            raise ValueError(f"inputs: two tensors have the name {name!r}")
    index = {id(node): i for i, node in enumerate(order)}
    return {
        "version": VERSION,
        "nodes": [
            [NAMES[node._kind], _plain(node, long_table), [index[id(a)] for a in node._arguments]]
            for node in order
        ],
    }


def _plain(node: Node, long_table: Callable[[NDArray[np.float64]], Any]) -> Any:
    if node._kind == CONSTANT:
        return float(node._payload)
    if node._kind == INPUT:
        return node._payload[1]
    if node._kind == Op.TABLE:
        if len(node._payload) > LONG_TABLE:
            return long_table(node._payload)
        return node._payload.tolist()
    return None


def from_dict(
    make: type[N], data: dict[str, Any], inputs: Mapping[str, torch.Tensor] | None = None
) -> N:
    """The schedule from ``to_dict``'s data, with nodes of the class ``make``.

    Raises:
        TypeError: the data is not a dictionary.
        ValueError: the data is not what ``to_dict`` writes, or an input's tensor is missing.
    """
    if not isinstance(data, dict):
        raise TypeError(f"data: must be a dictionary, got {type(data).__name__}")
    if data.get("version") != VERSION:
        raise ValueError(f"data: version must be {VERSION}, got {data.get('version')!r}")
    if not isinstance(data.get("nodes"), (list, tuple)):
        raise ValueError(f"data: nodes must be a list, got {data.get('nodes')!r:.80}")
    nodes: list[N] = []
    for i, entry in enumerate(data["nodes"]):
        try:
            kind, payload, indices = entry
            arguments = tuple(nodes[_earlier(j, i)] for j in indices)
            nodes.append(_node(make, kind, payload, arguments, inputs or {}))
        except (TypeError, ValueError, KeyError, OverflowError) as error:
            raise ValueError(f"data: node {i} {entry!r:.200}: {error}") from error
    if not nodes:
        raise ValueError("data: has no nodes")
    return nodes[-1]


def _earlier(j: Any, i: int) -> int:
    if isinstance(j, bool) or not isinstance(j, int) or not 0 <= j < i:
        raise ValueError(f"argument {j!r} is not an earlier node")
    return j


def _node(
    make: type[N],
    kind: str,
    payload: Any,
    arguments: tuple[N, ...],
    inputs: Mapping[str, torch.Tensor],
) -> N:
    if kind in (STEP, CONSTANT, INPUT) and arguments:
        raise ValueError(f"{kind} takes no arguments, got {len(arguments)}")
    if kind == STEP:
        return make(STEP)
    if kind == CONSTANT:
        if isinstance(payload, bool) or not isinstance(payload, (int, float)):
            raise ValueError("a constant must be a number")
        return make(CONSTANT, payload=float(payload))
    if kind == INPUT:
        if payload not in inputs:
            raise ValueError(f"inputs: no tensor for input {payload!r}")
        return make(INPUT, payload=input_payload(inputs[payload], payload))
    op = Op[str(kind).upper()]
    if len(arguments) != ARITY[op]:
        raise ValueError(f"{kind} takes {ARITY[op]} arguments, got {len(arguments)}")
    if op == Op.TABLE:
        values = table_payload(np.asarray(payload, dtype=np.float64))
        return make(Op.TABLE, arguments, values)
    return apply(op, *arguments)

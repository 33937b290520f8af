"""Schedule: an immutable arithmetic expression over the step."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from lrfused.schedules.bytecode import Op, Program
from lrfused.schedules.check import whole
from lrfused.schedules.compiler import compile_all
from lrfused.schedules.evaluate import evaluate_one
from lrfused.schedules.formula import formula
from lrfused.schedules.nodes import (
    CONSTANT,
    INPUT,
    STEP,
    Node,
    Row,
    equal,
    flattened,
    nodes_in_order,
)
from lrfused.schedules.operations import apply
from lrfused.schedules.payloads import table_payload
from lrfused.schedules.plot import plot_schedule
from lrfused.schedules.serial import from_dict, to_dict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_STEP = 2**53


class Schedule(Node):
    """A value for every step: a pure function of the count of completed updates.

    Schedules are made by the functions of :mod:`lrfused.schedules` and by arithmetic
    (``+ - * / ** %``) with numbers and other schedules. They are immutable, compare and hash by
    value, and are evaluated in float64 with IEEE semantics, so they never raise: x / 0 is
    infinite, a negative number to a fractional power is nan.

    ``schedule(step)`` is exactly the number that an optimizer uses for the update after ``step``
    completed updates (it is rounded to float32 only where it meets a float32 tensor).

    Example:
        >>> from lrfused import schedules
        >>> lr = schedules.warmup_cosine(1e-3, warmup_steps=10, total_steps=100)
        >>> lr(0), lr(5), lr(10), lr(100)
        (0.0, 0.0005, 0.001, 0.0)
        >>> decay = 0.1 * lr / 1e-3
        >>> decay(10)
        0.1
    """

    # Caches are slots, because LambdaLR saves the __dict__ of a callable.
    __slots__ = ("__dict__", "_inputs", "_program")

    __array_ufunc__ = None  # NumPy scalars defer to this class's operators

    _program: Program | None
    _inputs: tuple["Schedule", ...] | None

    def __init__(self, kind: Any, arguments: tuple["Schedule", ...] = (), payload: Any = None):
        super().__init__(kind, arguments, payload)
        object.__setattr__(self, "_program", None)
        object.__setattr__(self, "_inputs", None)

    @property
    def program(self) -> Program:
        """The compiled form."""
        if self._program is None:
            object.__setattr__(self, "_program", compile_all([self]))
        return self._program  # type: ignore[return-value]

    @property
    def depends_on_step(self) -> bool:
        """True if the value may depend on the step."""
        return any(node._kind == STEP for node in nodes_in_order(self))

    @property
    def inputs(self) -> tuple["Schedule", ...]:
        """The distinct ``input`` nodes, in the order of the program's input registers."""
        if self._inputs is None:
            order = nodes_in_order(self) if self.program.names else []
            found = tuple(node for node in order if node._kind == INPUT)
            object.__setattr__(self, "_inputs", found)
        return self._inputs  # type: ignore[return-value]

    def _input_values(self) -> tuple[float, ...]:
        return tuple(float(node._payload[0].item()) for node in self.inputs)

    def __call__(self, step: int) -> float:
        """The value for the update that follows ``step`` completed updates.

        Args:
            step: completed updates, 0 <= step <= 2**53.

        Raises:
            TypeError: step is not an integer.
            ValueError: step is negative or too large.
        """
        whole("step", step, minimum=0, maximum=MAX_STEP)
        if self._kind == CONSTANT:
            return float(self._payload)
        return evaluate_one(self.program, int(step), self._input_values())

    def values(self, steps: ArrayLike) -> NDArray[np.float64]:
        """The values at many steps, as a float64 array of the same shape.

        Args:
            steps: integers, 0 <= step <= 2**53.

        Raises:
            TypeError: steps are not integers.
            ValueError: a step is negative or too large.

        Example:
            >>> from lrfused import schedules
            >>> schedules.linear(1.0, 0.0, steps=4).values(range(6)).tolist()
            [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
        """
        array = np.asarray(list(steps) if isinstance(steps, range) else steps)
        if array.size and array.dtype.kind not in "iu":
            raise TypeError(f"steps: must be integers, got {array.dtype}")
        if array.size and (array.min() < 0 or array.max() > MAX_STEP):
            raise ValueError(f"steps: must lie in [0, 2**53], got {array.min()} to {array.max()}")
        values = self.program.evaluate(array.astype(np.float64), self._input_values())
        return np.asarray(values, dtype=np.float64)

    # Composition

    def at(self, position: "Schedule | float") -> "Schedule":
        """The schedule evaluated at another position: every ``step`` in it is replaced.

        Example:
            >>> from lrfused import schedules
            >>> schedules.linear(0.0, 1.0, steps=8).at(schedules.floor(schedules.step / 2))(9)
            0.5
        """
        replaced: dict[int, Schedule] = {}
        for node in nodes_in_order(self):
            if node._kind == STEP:
                replaced[id(node)] = as_schedule(position)
            elif node._arguments:
                arguments = tuple(replaced[id(a)] for a in node._arguments)
                replaced[id(node)] = apply(node._kind, *arguments, payload=node._payload)
            else:
                replaced[id(node)] = node
        return replaced[id(self)]

    def shifted(self, steps: int) -> "Schedule":
        """The schedule delayed: value(max(step - steps, 0)).

        Args:
            steps: whole number of updates, >= 0.
        """
        whole("steps", steps, minimum=0)
        return self.at(apply(Op.MAX, step - float(steps), as_schedule(0.0)))

    def scaled(self, factor: "Schedule | float") -> "Schedule":
        """The schedule with every value multiplied by ``factor``."""
        return apply(Op.MUL, as_schedule(factor), self)

    def plot(self, steps: int, ax: "Axes | None" = None) -> "Axes":
        """Draw the first ``steps`` values with matplotlib and return the axes."""
        return plot_schedule(self, steps, ax)

    def to_dict(self) -> dict[str, Any]:
        """The schedule as plain data (numbers, strings, lists; long tables float64 tensors)."""
        return to_dict(self)

    @staticmethod
    def from_dict(
        data: dict[str, Any], inputs: Mapping[str, torch.Tensor] | None = None
    ) -> "Schedule":
        """The schedule that ``to_dict`` described; ``inputs`` maps names to tensors."""
        return from_dict(Schedule, data, inputs)

    # Value semantics

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Schedule):
            return NotImplemented
        return equal(self, other)

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        # A flat list, so that copying does not recurse as deep as the expression.
        return (_rebuild, (flattened(self),))

    def __bool__(self) -> bool:
        raise TypeError("a Schedule has no truth value: compare numbers, schedule(step)")

    def __repr__(self) -> str:
        return f"Schedule({formula(self)})"

    # Arithmetic

    def __add__(self, other: "Schedule | float") -> "Schedule":
        return _binary(Op.ADD, self, other)

    def __radd__(self, other: float) -> "Schedule":
        return _binary(Op.ADD, other, self)

    def __sub__(self, other: "Schedule | float") -> "Schedule":
        return _binary(Op.SUB, self, other)

    def __rsub__(self, other: float) -> "Schedule":
        return _binary(Op.SUB, other, self)

    def __mul__(self, other: "Schedule | float") -> "Schedule":
        return _binary(Op.MUL, self, other)

    def __rmul__(self, other: float) -> "Schedule":
        return _binary(Op.MUL, other, self)

    def __truediv__(self, other: "Schedule | float") -> "Schedule":
        return _binary(Op.DIV, self, other)

    def __rtruediv__(self, other: float) -> "Schedule":
        return _binary(Op.DIV, other, self)

    def __pow__(self, other: "Schedule | float") -> "Schedule":
        return _binary(Op.POW, self, other)

    def __rpow__(self, other: float) -> "Schedule":
        return _binary(Op.POW, other, self)

    def __mod__(self, other: "Schedule | float") -> "Schedule":
        return _binary(Op.MOD, self, other)

    def __rmod__(self, other: float) -> "Schedule":
        return _binary(Op.MOD, other, self)

    def __neg__(self) -> "Schedule":
        return _binary(Op.MUL, -1.0, self)


def _rebuild(rows: list[Row]) -> Schedule:
    """The schedule from the rows that ``__reduce__`` returned."""
    nodes: list[Schedule] = []
    for kind, payload, arguments in rows:
        if isinstance(payload, np.ndarray):
            payload = table_payload(payload)
        nodes.append(Schedule(kind, tuple(nodes[i] for i in arguments), payload))
    return nodes[-1]


def as_schedule(value: "Schedule | float") -> Schedule:
    """A number as a constant expression (its sign is not checked); a Schedule unchanged."""
    if isinstance(value, Schedule):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"schedule: operands are numbers or Schedules, got {type(value).__name__}")
    try:
        return Schedule(CONSTANT, payload=float(value))
    except OverflowError:
        raise ValueError(
            f"schedule: a number must fit in float64, got {str(value)[:20]}..."
        ) from None


def _binary(op: Op, x: "Schedule | float", y: "Schedule | float") -> Schedule:
    try:
        return apply(op, as_schedule(x), as_schedule(y))
    except TypeError:
        return NotImplemented


step = Schedule(STEP)
"""The count of completed updates, as a Schedule."""

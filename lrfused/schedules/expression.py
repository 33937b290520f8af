"""Schedule: an immutable arithmetic expression over the step, and the functions to build one."""

import struct
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from lrfused.program import ARITY, FUNCTIONS, Op, Program
from lrfused.schedules.check import finite, whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_DEPTH = 200
MAX_STEP = 2**53
INPUT_DTYPES = (
    torch.float64,
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.int32,
)

# A leaf's kind is one of these strings; every other node's kind is an Op.
STEP, CONSTANT, INPUT = "step", "constant", "input"


class Schedule:
    """A value for every step: a pure function of the count of completed updates.

    Schedules are made by the functions of :mod:`lrfused.schedules` and by arithmetic
    (``+ - * / ** %``) with numbers and other schedules. They are immutable, compare and hash by
    value, and are evaluated in float64 with IEEE semantics, so they never raise: x / 0 is
    infinite, a negative number to a fraction is nan.

    ``schedule(step)`` is the very number that an optimizer uses for the update after ``step``
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

    __slots__ = ("__dict__", "_arguments", "_depth", "_hash", "_kind", "_payload")

    __array_ufunc__ = None  # NumPy scalars leave the arithmetic to this class

    _kind: Any
    _arguments: tuple["Schedule", ...]
    _payload: Any
    _depth: int
    _hash: int

    def __init__(self, kind: Any, arguments: tuple["Schedule", ...] = (), payload: Any = None):
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
        key = (kind, _payload_key(payload), tuple(a._hash for a in arguments))
        write(self, "_hash", hash(key))

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Schedule is immutable: cannot delete {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a Schedule is immutable: cannot set {name!r}")

    @property
    def is_constant(self) -> bool:
        """True for a plain number."""
        return self._kind == CONSTANT

    @cached_property
    def program(self) -> Program:
        """The compiled form."""
        from lrfused.schedules.compiler import compile_schedule

        return compile_schedule(self)

    @cached_property
    def inputs(self) -> tuple["Schedule", ...]:
        """The distinct ``input`` nodes, in the order of the program's input registers."""
        from lrfused.schedules.compiler import nodes_in_order

        return tuple(node for node in nodes_in_order(self) if node._kind == INPUT)

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
        from lrfused.evaluate import evaluate_one

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
        """The same schedule read at another position: every ``step`` in it is replaced.

        Example:
            >>> from lrfused import schedules
            >>> schedules.linear(0.0, 1.0, steps=8).at(schedules.floor(schedules.step / 2))(9)
            0.5
        """
        from lrfused.schedules.compiler import nodes_in_order

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
        return self.at(maximum(step - float(steps), 0.0))

    def scaled(self, factor: "Schedule | float") -> "Schedule":
        """The schedule with every value multiplied by ``factor``."""
        return apply(Op.MUL, as_schedule(factor), self)

    def plot(self, steps: int, ax: "Axes | None" = None) -> "Axes":
        """Draw the first ``steps`` values with matplotlib and return the axes."""
        from lrfused.schedules.plot import plot_schedule

        return plot_schedule(self, steps, ax)

    def to_dict(self) -> dict[str, Any]:
        """The schedule as plain data (numbers, strings, lists; long tables float64 tensors)."""
        from lrfused.schedules.serial import to_dict

        return to_dict(self)

    @staticmethod
    def from_dict(
        data: dict[str, Any], inputs: dict[str, torch.Tensor] | None = None
    ) -> "Schedule":
        """The schedule that ``to_dict`` described; ``inputs`` maps names to tensors."""
        from lrfused.schedules.serial import from_dict

        return from_dict(data, inputs)

    # Value semantics

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Schedule):
            return NotImplemented
        pairs, seen = [(self, other)], set()
        while pairs:  # parts that are shared are compared once
            x, y = pairs.pop()
            if x is y or (id(x), id(y)) in seen:
                continue
            seen.add((id(x), id(y)))
            if x._key() != y._key():
                return False
            pairs.extend(zip(x._arguments, y._arguments, strict=True))
        return True

    def _key(self) -> tuple[Any, ...]:
        """What equal nodes have in common, apart from their arguments' own."""
        return (self._hash, self._kind, _payload_key(self._payload), len(self._arguments))

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        from lrfused.schedules.compiler import nodes_in_order

        # A flat list: copying must not recurse as deep as the expression.
        order = nodes_in_order(self)
        index = {id(node): i for i, node in enumerate(order)}
        rows = [(n._kind, n._payload, [index[id(a)] for a in n._arguments]) for n in order]
        return (_rebuild, (rows,))

    def __bool__(self) -> bool:
        raise TypeError("a Schedule has no truth value: compare numbers, schedule(step)")

    def __repr__(self) -> str:
        from lrfused.schedules.formula import formula

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


def _payload_key(payload: Any) -> Any:
    """What two payloads are compared by: bits of floats, bytes of tables, identity of tensors."""
    if isinstance(payload, float):
        return struct.pack("<d", payload)
    if isinstance(payload, np.ndarray):
        return payload.tobytes()
    if isinstance(payload, tuple):
        return (id(payload[0]), payload[1])
    return payload


def _rebuild(rows: list[tuple[Any, Any, list[int]]]) -> Schedule:
    """The schedule that ``__reduce__`` took apart."""
    nodes: list[Schedule] = []
    for kind, payload, arguments in rows:
        if isinstance(payload, np.ndarray):
            payload.setflags(write=False)
        nodes.append(Schedule(kind, tuple(nodes[i] for i in arguments), payload))
    return nodes[-1]


def as_schedule(value: "Schedule | float") -> Schedule:
    """A number as a constant expression (no check of its sign); a Schedule as it is."""
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


def apply(op: Op, *arguments: Schedule, payload: Any = None) -> Schedule:
    """The node of an operation; one with constant arguments is folded by the evaluator itself."""
    if all(a._kind == CONSTANT for a in arguments) and op != Op.TABLE:
        with np.errstate(all="ignore"):
            operands = [np.array([a._payload]) for a in arguments]
            return Schedule(CONSTANT, payload=float(FUNCTIONS[op](*operands)[0]))
    assert len(arguments) == ARITY[op]
    return Schedule(op, arguments, payload)


def _binary(op: Op, x: "Schedule | float", y: "Schedule | float") -> Schedule:
    try:
        return apply(op, as_schedule(x), as_schedule(y))
    except TypeError:
        return NotImplemented


step = Schedule(STEP)
"""The count of completed updates, as a Schedule."""


def minimum(x: "Schedule | float", y: "Schedule | float") -> Schedule:
    """The smaller of two values; nan where either is nan."""
    return apply(Op.MIN, as_schedule(x), as_schedule(y))


def maximum(x: "Schedule | float", y: "Schedule | float") -> Schedule:
    """The larger of two values; nan where either is nan."""
    return apply(Op.MAX, as_schedule(x), as_schedule(y))


def less(x: "Schedule | float", y: "Schedule | float") -> Schedule:
    """1 where x < y, else 0: a condition for :func:`select`."""
    return apply(Op.LESS, as_schedule(x), as_schedule(y))


def less_equal(x: "Schedule | float", y: "Schedule | float") -> Schedule:
    """1 where x <= y, else 0."""
    return apply(Op.LESS_EQUAL, as_schedule(x), as_schedule(y))


def equal(x: "Schedule | float", y: "Schedule | float") -> Schedule:
    """1 where x == y, else 0."""
    return apply(Op.EQUAL, as_schedule(x), as_schedule(y))


def select(
    condition: Schedule, if_true: "Schedule | float", if_false: "Schedule | float"
) -> Schedule:
    """``if_true`` where the condition is not 0, else ``if_false``; the other one is discarded.

    Example:
        >>> from lrfused.schedules import less, select, step
        >>> drop = select(less(step, 100), 1e-3, 1e-4)
        >>> drop(99), drop(100)
        (0.001, 0.0001)
    """
    return apply(Op.SELECT, as_schedule(condition), as_schedule(if_true), as_schedule(if_false))


def floor(x: "Schedule | float") -> Schedule:
    """The largest whole number <= x."""
    return apply(Op.FLOOR, as_schedule(x))


def sqrt(x: "Schedule | float") -> Schedule:
    """The square root; nan below 0."""
    return apply(Op.SQRT, as_schedule(x))


def exp(x: "Schedule | float") -> Schedule:
    """e to the x, within 2 ulp."""
    return apply(Op.EXP, as_schedule(x))


def log(x: "Schedule | float") -> Schedule:
    """The natural logarithm, within 2 ulp; -inf at 0, nan below."""
    return apply(Op.LOG, as_schedule(x))


def cos(x: "Schedule | float") -> Schedule:
    """The cosine of any finite x in radians, within 2 ulp."""
    return apply(Op.COS, as_schedule(x))


def input(tensor: torch.Tensor, name: str) -> Schedule:
    """A number that lives in a tensor and that the caller may change at any time.

    It is read at every update, on the device, in the step that uses it.

    Args:
        tensor: one element; float64, float32, bfloat16, float16, int64 or int32.
        name: what the value is called in ``repr``, ``to_dict`` and checkpoints.

    Raises:
        TypeError: not a tensor of these dtypes, or the name is not a string.
        ValueError: not exactly one element, or the name is empty.

    Example:
        >>> import torch
        >>> from lrfused import schedules
        >>> noise = torch.tensor(0.5)
        >>> lr = 1e-2 * schedules.input(noise, "noise")
        >>> lr(0)
        0.005
        >>> _ = noise.fill_(0.25)
        >>> lr(0)
        0.0025
    """
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"tensor: must be a torch.Tensor, got {type(tensor).__name__}")
    if tensor.numel() != 1:
        raise ValueError(f"tensor: must have one element, got shape {tuple(tensor.shape)}")
    if tensor.dtype not in INPUT_DTYPES:
        raise TypeError(f"tensor: dtype must be one of {INPUT_DTYPES}, got {tensor.dtype}")
    if not isinstance(name, str):
        raise TypeError(f"name: must be a string, got {type(name).__name__}")
    if not name:
        raise ValueError("name: must not be empty")
    return Schedule(INPUT, payload=(tensor, name))


def table(values: ArrayLike) -> Schedule:
    """Tabulated values, one a step: linear between entries, the last one held.

    Args:
        values: at least one finite number; entry t is the value at step t.

    Raises:
        ValueError: empty, not one-dimensional, or not finite.

    Example:
        >>> from lrfused import schedules
        >>> ramp = schedules.table([0.0, 1.0, 4.0])
        >>> ramp(1), ramp(9), ramp.at(schedules.step / 2)(3)
        (1.0, 4.0, 2.5)
    """
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().double().numpy()
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"values: must be a list of numbers: {error}") from None
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"values: must be a non-empty list of numbers, got shape {array.shape}")
    if not np.isfinite(array).all():
        index = int(np.flatnonzero(~np.isfinite(array))[0])
        raise ValueError(f"values: must be finite, got {array[index]} at index {index}")
    array.setflags(write=False)
    return Schedule(Op.TABLE, (step,), array)


def from_function(fn: Callable[[int], float], steps: int) -> Schedule:
    """A callable sampled at steps 0 .. steps, the last value held.

    Args:
        fn: called with each step, returns a finite number.
        steps: the last step that is sampled, >= 0.

    Example:
        >>> from lrfused import schedules
        >>> schedules.from_function(lambda t: 1.0 / (1 + t), steps=100)(3)
        0.25
    """
    if not callable(fn):
        raise TypeError(f"fn: must be callable, got {type(fn).__name__}")
    whole("steps", steps, minimum=0)
    samples: Iterable[float] = (fn(t) for t in range(steps + 1))
    return table([finite(f"fn({t})", value) for t, value in enumerate(samples)])

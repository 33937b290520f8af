"""A step under torch.compile: one operator that runs the eager step on the tensors it is given.

The compiler sees which tensors a step reads and writes, but no number: learning rates and the
bookkeeping are read when the operator runs, so Dynamo does not guard them and changes cause no
recompilation. Imported when a step is first traced, not before.
"""

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling
from torch.optim import optimizer

from lrfused.engine.bound_table import BoundTable
from lrfused.engine.changes import holds
from lrfused.memory.checks import PLAIN
from lrfused.memory.normal_tensors import normal_tensors
from lrfused.optim.live import LIVE, Live
from lrfused.rules.average import AVERAGE
from lrfused.state.operands import operands_in

Attribute = tuple[Any, str, Any]
_ABSENT: Any = object()


class Inner(NamedTuple):
    """The tensors that a step uses besides parameters and gradients, while a table holds."""

    table: BoundTable | None
    counters: list[Tensor]
    moments: list[Tensor]
    inputs: list[Tensor]
    version: int  # the table's

    @staticmethod
    def of(opt: Live, places: Iterable[int]) -> "Inner":
        """The optimizer's present tensors, where the parameters at ``places`` have gradients."""
        engine = opt._engine
        books = engine.bookkeeping
        state = books.state(opt.param_groups)
        counts = state.tensors
        return Inner(
            engine.table,
            [state.words, state.loss_scale, counts.counts, counts.steps, counts.carried],
            [x for s in _states(opt) for _, x in operands_in(books.rule, s)],
            [
                *(node._payload[0] for _, _, sch in books.hyper.programs for node in sch.inputs),
                *_only_averaged(opt, set(places)),
            ],
            0 if engine.table is None else engine.table.version,
        )

    def is_of(self, table: BoundTable | None) -> bool:
        """True if it was made for this table, which has bound no other tensors since."""
        return table is self.table and (table is None or table.version == self.version)


def _only_averaged(opt: Live, places: set[int]) -> list[Tensor]:
    """The parameters without a gradient that a step reads all the same."""
    return [
        param
        for i, param in enumerate(_parameters(opt))
        if i not in places and AVERAGE.key in (opt.state.get(param) or {})
    ]


def _states(opt: Live) -> list[dict[str, Any]]:
    return [state for state in opt.state.values() if isinstance(state, dict)]


# Traced by Dynamo


def step(opt: Live, closure: Callable[[], Any] | None, has_hooks: bool) -> Any:
    """The compiled form of ``step``; without hooks if torch has wrapped ``step`` itself."""
    hooks: tuple[Sized, ...] = (
        opt._optimizer_step_pre_hooks,
        opt._optimizer_step_post_hooks,
        optimizer._global_optimizer_pre_hooks,
        optimizer._global_optimizer_post_hooks,
    )
    # Lengths, which Dynamo guards; it does not guard the truth value of an OrderedDict.
    observed = has_hooks and sum(map(len, hooks)) > 0
    return _step_with_hooks(opt, closure) if observed else _step(opt, closure)


def _step(opt: Live, closure: Callable[[], Any] | None = None) -> Any:
    loss = None
    if closure is not None:
        with torch.enable_grad():
            loss = closure()
    params = _parameters(opt)
    places = [i for i, p in enumerate(params) if p.grad is not None]
    if not places:
        return loss
    # Not compiling here means that tracing failed and this runs eagerly.
    if not (is_dynamo_compiling() and _prepare(id(opt), tuple(places))):
        untraced(opt._update)
        return loss
    grads = [params[i].grad for i in places]
    writes = opt._engine.bookkeeping.options.changes_gradients
    inner: Inner = opt._inner  # type: ignore[attr-defined]
    with torch.no_grad():
        torch.ops.lrfused.step(
            id(opt),
            places,
            [params[i] for i in places],
            inner.counters,
            inner.moments,
            inner.inputs,
            grads if writes else [],
            [] if writes else grads,
            _tensor(getattr(opt, "grad_scale", None)),
            _tensor(getattr(opt, "found_inf", None)),
        )
    return loss


def loss_scale(opt: Any) -> Tensor:
    """The one-element tensor that multiplies an optimizer's loss."""
    _make_counters(id(opt))
    return opt._engine.bookkeeping.counters.device_state.loss_scale


_step_with_hooks = torch.optim.Optimizer.profile_hook_step(_step)


def _parameters(opt: Live) -> list[Tensor]:
    # Not opt.param_groups: Dynamo guards every number in an optimizer's attribute of that name.
    return [p for group in opt.__dict__["param_groups"] for p in group["params"]]


def _tensor(value: Any) -> Tensor | None:
    return value if isinstance(value, Tensor) else None


@torch.compiler.disable  # type: ignore[untyped-decorator]
def untraced(function: Callable[..., None], *args: Any) -> None:
    """Call a function that Dynamo must not trace, whatever it did with the calling frames."""
    function(*args)


# Run at trace time


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _make_counters(identity: int) -> None:
    opt = LIVE[identity]
    opt._engine.bookkeeping.present_loss_scale(opt.param_groups, opt.state)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _prepare(identity: int, places: tuple[int, ...]) -> bool:
    """Allocate state for these parameters before tracing; False if they cannot be compiled."""
    opt = LIVE[identity]
    books, groups, table = opt._engine.bookkeeping, opt.param_groups, opt._engine.table
    params = _parameters(opt)
    if any(type(p) not in PLAIN for p in params):
        return False
    moving = [params[i] for i in places]
    if (
        table is None
        or not all(opt.state.get(p) for p in moving)
        or not holds(table, groups, opt.state)
    ):
        # The step itself would do this, but only after the trace.
        with normal_tensors():
            books.make_states(groups, opt.state, moving)
            books.state(groups).set_groups(len(groups))
    opt.__dict__["_inner"] = Inner.of(opt, places)
    return True


# Called by a compiled graph


@torch.no_grad()
def _run(
    identity: int,
    places: list[int],
    params: list[Tensor],
    counters: list[Tensor],
    moments: list[Tensor],
    inputs: list[Tensor],
    written_grads: list[Tensor],
    grads: list[Tensor],
    grad_scale: Tensor | None,
    found_inf: Tensor | None,
) -> None:
    """Run the eager step on the given tensors: the optimizer's own, or stand-ins for them.

    A compiler passes a copy if the old values may still be needed.
    """
    opt = LIVE[identity]
    every = _parameters(opt)
    inner: Inner = opt.__dict__["_inner"]
    written = [*zip([every[i] for i in places], params, strict=True)]
    written += zip(inner.counters + inner.moments, counters + moments, strict=True)
    read = [*zip(inner.inputs, inputs, strict=True)]
    given = dict(zip(places, written_grads or grads, strict=True))
    attributes: list[Attribute] = [(p, "grad", given.get(i)) for i, p in enumerate(every)]
    scales = (("grad_scale", grad_scale), ("found_inf", found_inf))
    attributes += [(opt, name, scale) for name, scale in scales if scale is not None]
    with _lent(written + read), _replaced(attributes):
        try:
            opt._update()
        finally:
            _hand_back(written)
            if inner.table is None or not inner.is_of(opt._engine.table):
                # The step rebound: the graph's next call reads the present tensors.
                opt.__dict__["_inner"] = Inner.of(opt, places)


def _hand_back(written: list[tuple[Tensor, Tensor]]) -> None:
    """Copy the step's results from the optimizer's own tensors to the stand-ins."""
    for own, passed in written:
        if _elsewhere(own, passed):
            passed.copy_(own)


@contextmanager
def _lent(pairs: list[tuple[Tensor, Tensor]]) -> Iterator[None]:
    """Lend each pair's first tensor the second's values; afterwards restore its own."""
    lent = [(own, own.clone(), passed) for own, passed in pairs if _elsewhere(own, passed)]
    try:
        for own, _, passed in lent:
            own.copy_(passed)
        yield
    finally:
        for own, before, _ in lent:
            own.copy_(before)


@contextmanager
def _replaced(attributes: list[Attribute]) -> Iterator[None]:
    """Set these attributes temporarily."""
    before = [(owner, name, getattr(owner, name, _ABSENT)) for owner, name, _ in attributes]
    try:
        _assign(attributes)
        yield
    finally:
        _assign(before)


def _assign(attributes: list[Attribute]) -> None:
    for owner, name, value in attributes:
        if value is _ABSENT:
            delattr(owner, name)
        elif getattr(owner, name, _ABSENT) is not value:
            setattr(owner, name, value)


def _elsewhere(x: Tensor, y: Tensor) -> bool:
    return x is not y and x.data_ptr() != y.data_ptr()


def _define() -> None:
    # Not for CUDA graphs made by the compiler: a replay would never read the host's numbers again.
    tags = [torch.Tag.pt2_compliant_tag]
    if hasattr(torch.Tag, "cudagraph_unsafe"):
        tags.append(torch.Tag.cudagraph_unsafe)
    torch.library.define(
        "lrfused::step",
        "(int identity, int[] places, Tensor(a!)[] params, Tensor(b!)[] counters, "
        "Tensor(c!)[] moments, Tensor[] inputs, Tensor(d!)[] written_grads, Tensor[] grads, "
        "Tensor? grad_scale, Tensor? found_inf) -> ()",
        tags=tags,
    )
    torch.library.register_fake("lrfused::step", lambda *_: None)
    run = torch.compiler.disable(_run)  # type: ignore[no-untyped-call]
    torch.library.impl("lrfused::step", "CompositeExplicitAutograd", run)


_define()

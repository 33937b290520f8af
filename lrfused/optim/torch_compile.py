"""A step under torch.compile: one operator that makes the eager step on what it is given.

The compiler sees which tensors a step reads and writes, and no number: learning rates and the
step's bookkeeping are looked at when the operator runs, so nothing of them is guarded and nothing
is compiled anew when they change. Imported when a step is traced for the first time, not before.
"""

from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling
from torch.optim import optimizer

from lrfused.engine.bound_table import BoundTable
from lrfused.memory.checks import PLAIN
from lrfused.memory.normal_tensors import normal_tensors
from lrfused.optim.live import LIVE, Live
from lrfused.state.operands import operands_in

Attribute = tuple[Any, str, Any]
_ABSENT: Any = object()


class Inner(NamedTuple):
    """What a step reads and writes besides parameters and gradients, while a table holds."""

    table: BoundTable | None
    counters: list[Tensor]
    moments: list[Tensor]
    inputs: list[Tensor]

    @staticmethod
    def of(opt: Live) -> "Inner":
        """The optimizer's tensors as they are now."""
        engine = opt._engine
        books = engine.bookkeeping
        state = books.state(opt.param_groups)
        counts = state.tensors
        return Inner(
            engine.table,
            [state.words, state.loss_scale, counts.counts, counts.steps, counts.carried],
            [x for s in _states(opt) for _, x in operands_in(books.rule, s)],
            [node._payload[0] for _, _, sch in books.hyper.programs for node in sch.inputs],
        )


def _states(opt: Live) -> list[dict[str, Any]]:
    return [state for state in opt.state.values() if isinstance(state, dict)]


# What Dynamo traces


def step(opt: Live, closure: Callable[[], Any] | None, has_hooks: bool) -> Any:
    """The optimizer's ``step`` as it is compiled; without hooks where torch has wrapped it."""
    hooks: tuple[Sized, ...] = (
        opt._optimizer_step_pre_hooks,
        opt._optimizer_step_post_hooks,
        optimizer._global_optimizer_pre_hooks,
        optimizer._global_optimizer_post_hooks,
    )
    # Their lengths: Dynamo guards those, and not whether an OrderedDict is true.
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
    # Not compiling: tracing has failed, and this runs as it is written.
    if not (is_dynamo_compiling() and _prepare(id(opt), tuple(places))):
        untraced(opt._update)
        return loss
    grads = [params[i].grad for i in places]
    writes = opt._engine.bookkeeping.options.write_grads
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


def loss_scale(opt: Live) -> Tensor:
    """The tensor of one element that multiplies the loss."""
    _make_counters(id(opt))
    return opt._engine.bookkeeping.counters.device_state.loss_scale  # type: ignore[union-attr]


_step_with_hooks = torch.optim.Optimizer.profile_hook_step(_step)


def _parameters(opt: Live) -> list[Tensor]:
    # Not opt.param_groups: Dynamo guards every number in what an optimizer has by that name.
    return [p for group in opt.__dict__["param_groups"] for p in group["params"]]


def _tensor(value: Any) -> Tensor | None:
    return value if isinstance(value, Tensor) else None


@torch.compiler.disable  # type: ignore[untyped-decorator]
def untraced(function: Callable[..., None], *args: Any) -> None:
    """Call what Dynamo has to leave alone, whatever it has made of the frames around."""
    function(*args)


# What happens at once while Dynamo traces


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _make_counters(identity: int) -> None:
    opt = LIVE[identity]
    opt._engine.bookkeeping.present_loss_scale(opt.param_groups, opt.state)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _prepare(identity: int, places: tuple[int, ...]) -> bool:
    """State for these parameters, so that it can be traced; False if they cannot be compiled."""
    opt = LIVE[identity]
    books, groups, table = opt._engine.bookkeeping, opt.param_groups, opt._engine.table
    params = _parameters(opt)
    if any(type(p) not in PLAIN for p in params):
        return False
    moving = [params[i] for i in places]
    if (
        table is None
        or not all(opt.state.get(p) for p in moving)
        or not table.holds(groups, opt.state)
    ):
        # As the step itself would do it, which can only be too late for the trace.
        with normal_tensors():
            books.make_states(groups, opt.state, moving)
            books.state(groups).set_groups(len(groups))
    opt.__dict__["_inner"] = Inner.of(opt)
    return True


# What a compiled graph calls


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
    """The eager step on the tensors that were passed: the optimizer's own, or stand-ins.

    A compiler passes a copy where it is not sure that nobody needs the old values any more.
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
            if inner.table is None or inner.table is not opt._engine.table:
                # What there is now is what the graph reads at its next call.
                opt.__dict__["_inner"] = Inner.of(opt)


def _hand_back(written: list[tuple[Tensor, Tensor]]) -> None:
    """Give the stand-ins what the step made of the optimizer's own tensors."""
    for own, passed in written:
        if _elsewhere(own, passed):
            passed.copy_(own)


@contextmanager
def _lent(pairs: list[tuple[Tensor, Tensor]]) -> Iterator[None]:
    """The first of each pair holds what the second does, and afterwards what it held before."""
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
    """Other values of these attributes for a while."""
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
    # A graph that is replayed on a GPU would never again look at the host's numbers.
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

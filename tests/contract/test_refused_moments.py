"""Moments that a caller put in place and that no step can use: an error before anything moves."""

import pytest
import torch
from lib.contract import (
    assert_same_bits,
    assert_same_run,
    give_gradients,
    make_parameters,
    parameters_of,
    run,
    tensors_of,
    twin,
)
from lib.optimizers import ADAMW, KINDS, every_moment, with_state

SHAPES = ((2, 3), (6, 6), (6, 6))


class Tagged(torch.Tensor):
    """A subclass of Tensor."""


def freed():
    moment = torch.zeros(6, 6)
    moment.untyped_storage().resize_(0)
    return moment


UNUSABLE = {
    "expanded": (lambda: torch.zeros(1).expand(6, 6), "share memory"),
    "sliding windows": (lambda: torch.zeros(20).as_strided((6, 6), (1, 1)), "share memory"),
    "subclass": (lambda: torch.zeros(6, 6).as_subclass(Tagged), "Tagged"),
    "meta": (lambda: torch.zeros(6, 6, device="meta"), "meta"),
    "freed": (freed, "memory"),
    "float8": (lambda: torch.zeros(6, 6).to(torch.float8_e5m2), "float8"),
    "sparse": (lambda: torch.zeros(6, 6).to_sparse(), "sparse"),
    "complex": (lambda: torch.zeros(6, 6, dtype=torch.complex64), "complex64"),
}


def refused(rng, kind, backend, key, moment_of, match):
    """The step raises with the moment in place, nothing moves, and without it the run goes on."""
    params = make_parameters(rng, shapes=SHAPES)
    plain = kind.ours(twin(params), **kind.widest, backend=backend)
    opt = kind.ours(params, **kind.widest, backend=backend)
    run(rng, 2, opt, plain)
    good, kept = opt.state[params[1]][key], tensors_of(opt)
    opt.state[params[1]][key] = moment_of(opt)
    give_gradients(rng, opt)
    with pytest.raises((ValueError, TypeError), match=match):
        opt.step()
    opt.state[params[1]][key] = good
    assert_same_bits(tensors_of(opt), kept)
    assert opt.metrics()["steps"] == 2
    run(rng, 2, opt, plain)
    assert_same_run(opt, plain)


@every_moment
@pytest.mark.parametrize("make,match", UNUSABLE.values(), ids=UNUSABLE)
def test_a_moment_that_no_kernel_can_write_is_refused(rng, kind, backend, key, make, match):
    """Expanded, overlapping, freed, on meta, sparse, a subclass, of another kind of dtype."""
    refused(rng, kind, backend, key, lambda opt: make(), match)


SHARING = {
    "with another moment": lambda opt, p, q, key: opt.state[p][KEYS[KEYS.index(key) - 1]],
    "with another parameter's": lambda opt, p, q, key: opt.state[q][key],
    "with its parameter": lambda opt, p, q, key: p.detach(),
    "with another parameter": lambda opt, p, q, key: q.detach().t(),
}
KEYS = list(ADAMW.sizes)


@pytest.mark.parametrize(
    ("kind", "key", "other"),
    [
        pytest.param(kind, key, other, id=f"{kind.name}-{key}-{name}")
        for kind in KINDS
        if kind.has_state
        for key in kind.sizes
        for name, other in SHARING.items()
        if len(kind.sizes) > 1 or name != "with another moment"
    ],
)
def test_a_moment_that_shares_memory_is_refused(rng, kind, backend, key, other):
    """Two moments in one memory, or a moment in a parameter's: one would overwrite the other."""

    def moment_of(opt):
        _, p, q = parameters_of(opt)
        return other(opt, p, q, key)

    refused(rng, kind, backend, key, moment_of, "share memory")


@with_state
def test_moments_that_are_pieces_of_one_buffer_step(rng, kind, backend):
    """Moments in one flat buffer, side by side or interleaved, have no place in common."""
    params = make_parameters(rng, shapes=SHAPES)
    plain = kind.ours(twin(params), **kind.widest, backend=backend)
    opt = kind.ours(params, **kind.widest, backend=backend)
    run(rng, 2, opt, plain)
    for param in params:
        buffer = torch.empty(param.numel(), 2)
        for place, key in enumerate(kind.moments):
            piece = buffer[:, place].view(param.shape)
            opt.state[param][key] = piece.copy_(opt.state[param][key])
    run(rng, 3, opt, plain)
    assert_same_run(opt, plain)

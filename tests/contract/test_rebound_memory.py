"""Memory that is rebound, moved or freed between two steps: the step uses what is there now."""

import multiprocessing
from multiprocessing.reduction import ForkingPickler

import lib.interpreting  # noqa: F401 (makes it quick, in other processes, too)
import numpy as np
import pytest
import torch
from lib import emulating
from lib.contract import (
    assert_near,
    assert_same_bits,
    give_gradients,
    make_parameters,
    parameters_of,
    run,
    twin,
)
from lib.optimizers import KINDS, every_moment, named, that_counts, with_state
from lib.seeds import Rng

from lrfused import native

SHAPES = ((6, 6), (13,), (5, 5))


HANDLES = "torch._C._aoti.unsafe_alloc_void_ptr_from_tensor"


@pytest.fixture(autouse=True)
def interface(reader, monkeypatch):
    """The ways in which the walk can ask torch where a tensor lies; DLPack without handles, too."""
    if reader == "DLPack":
        monkeypatch.delattr(HANDLES)


def options(kind):
    """With which there is all the state that there may be."""
    return {"lr": 0.02, **kind.widest}


def pair(rng, kind, backend):
    """Ours and torch's over equal parameters, in the middle of a run."""
    params = make_parameters(rng, shapes=SHAPES)
    theirs = kind.theirs(twin(params), **options(kind))
    ours = kind.ours(params, **options(kind), backend=backend)
    run(rng, 3, ours, theirs)
    return ours, theirs


def states_of(opt):
    """The state of each parameter, in order."""
    return [opt.state[p] for p in parameters_of(opt)]


def two_of_ours(rng, kind, backend):
    """Two in the middle of a run, over equal parameters, with all that goes on between updates."""
    params = make_parameters(rng, shapes=SHAPES)
    more = {**options(kind), **kind.carrying}
    opts = [kind.ours(each, **more, backend=backend) for each in (params, twin(params))]
    run(rng, 3, *opts)
    return opts


def counts_of(opt):
    """The keys of counts, and of the numbers that go from update to update."""
    return [key for key, tensor in states_of(opt)[1].items() if not tensor.dim()]


def assert_same_steps(rng, *opts):
    """The same bits after three updates, the state's, too."""
    run(rng, 3, *opts)
    assert_same_bits(*map(parameters_of, opts))
    for both in zip(*map(states_of, opts), strict=True):
        assert_same_bits(*(state.values() for state in both))


@every_moment
def test_data_of_a_moment_may_be_rebound(rng, kind, backend, key):
    """state["exp_avg"].data = ... : the step uses the new memory, and does not touch the old."""
    ours, theirs = pair(rng, kind, backend)
    old = [state[key].data for state in states_of(ours)]
    kept = [moment.clone() for moment in old]
    for opt in (ours, theirs):
        for state in states_of(opt):
            state[key].data = state[key].data * 3.0
    run(rng, 3, ours, theirs)
    assert_near(ours, theirs)
    assert_same_bits(old, kept)


@that_counts
def test_data_of_a_step_count_may_be_rebound(rng, kind, backend):
    """state["step"].data = ... : bias correction counts from there."""
    ours, theirs = pair(rng, kind, backend)
    for opt in (ours, theirs):
        for state in states_of(opt):
            state["step"].data = torch.tensor(9.0)
    run(rng, 3, ours, theirs)
    assert_near(ours, theirs)


@with_state
def test_data_of_what_goes_from_update_to_update_may_be_rebound(rng, kind, backend):
    """The step takes the value, shows its own numbers again, and a checkpoint has these."""
    moved, other = two_of_ours(rng, kind, backend)
    for state in states_of(moved):
        for key in counts_of(moved):
            state[key].data = state[key].data.clone()
    assert_same_steps(rng, moved, other)
    saved = [opt.state_dict()["state"].values() for opt in (moved, other)]
    for mine, others in zip(*saved, strict=True):
        assert_same_bits(mine.values(), others.values())


def test_data_may_be_rebound_to_another_view_of_itself(rng, kind, backend):
    """p.data = p.data.t(): the same address with other strides; as in torch."""
    ours, theirs = pair(rng, kind, backend)
    for opt in (ours, theirs):
        for p in parameters_of(opt):
            p.data = p.data.t()
    run(rng, 3, ours, theirs)
    assert_near(ours, theirs)


@every_moment
def test_a_moment_may_be_rebound_to_another_view_of_itself(rng, kind, backend, key):
    """So it is with a moment's."""
    ours, theirs = pair(rng, kind, backend)
    for opt in (ours, theirs):
        for state in states_of(opt):
            tensor = state[key]
            tensor.data = tensor.data.t()
    run(rng, 3, ours, theirs)
    assert_near(ours, theirs)


@with_state
def test_data_rebound_to_a_part_of_itself_is_refused(rng, kind, backend):
    """p.data = p.data[:2]: the same address, but the moments have another shape; nothing moves."""
    ours, _ = pair(rng, kind, backend)
    param = parameters_of(ours)[0]
    whole = param.data
    param.grad = None
    param.data = whole[:2]
    kept = [whole.clone(), *(p.detach().clone() for p in parameters_of(ours)[1:])]
    give_gradients(rng, ours)
    with pytest.raises(ValueError, match=f"{kind.moments[0]} of a parameter of shape"):
        ours.step()
    assert_same_bits([whole, *parameters_of(ours)[1:]], kept)
    assert ours.metrics()["steps"] == 3
    param.grad, param.data = None, whole
    run(rng, 1, ours)
    assert ours.metrics()["steps"] == 4


def test_data_rebound_to_another_dtype_of_itself_steps_as_that(rng, kind, backend):
    """p.data = p.data.view(torch.bfloat16)...: the same address, a parameter of another dtype."""
    ours, _ = pair(rng, kind, backend)
    for p in parameters_of(ours):
        values = p.detach().bfloat16()
        p.grad = None
        p.data = p.data.view(torch.bfloat16)[..., : p.shape[-1]].copy_(values)
    plain = kind.ours(twin(parameters_of(ours)), **options(kind), backend=backend)
    plain.load_state_dict(ours.state_dict())
    run(rng, 3, ours, plain)
    assert_same_bits(parameters_of(ours), parameters_of(plain))
    for mine, other in zip(states_of(ours), states_of(plain), strict=True):
        moments_of = [[state[key] for key in kind.sizes if key in state] for state in (mine, other)]
        assert_same_bits(*moments_of)


# Storage that changes under a tensor. A step that used an old address could end the process.


def shared(opt):
    """Everything in shared memory, as when several processes train together."""
    for state in states_of(opt):
        for tensor in state.values():
            tensor.share_memory_()


def sent(opt):
    """A state_dict on its way through a queue: torch moves what it holds to shared memory."""
    ForkingPickler.dumps(opt.state_dict())


def sent_itself(opt):
    """The optimizer on its way through a queue."""
    ForkingPickler.dumps(opt)


def freed_and_back(opt):
    """Moments that were offloaded, and are in other memory now."""
    moments = [tensor for state in states_of(opt) for tensor in state.values() if tensor.dim()]
    kept = [moment.clone() for moment in moments]
    for moment in moments:
        moment.untyped_storage().resize_(0)
    others = [torch.randn_like(moment) for moment in kept for _ in range(20)]
    for moment, values in zip(moments, kept, strict=True):
        moment.untyped_storage().resize_(4 * values.numel())
        moment.copy_(values)
    assert others


def fresh_rng(seed):
    """As the fixture's, in another process."""
    return Rng(np.random.default_rng(seed), torch.Generator().manual_seed(seed))


def step_after(move, seed, kind, backend):
    """As torch does, although the memory has moved."""
    rng = fresh_rng(seed)
    ours, theirs = pair(rng, kind, backend)
    for opt in (ours, theirs):
        move(opt)
    run(rng, 3, ours, theirs)
    assert_near(ours, theirs)


def refuse_freed(take, seed, kind, backend):
    """An error that says so, and nothing has moved."""
    rng = fresh_rng(seed)
    lr = torch.tensor(0.02)
    params = make_parameters(rng, shapes=SHAPES)
    opt = kind.ours(params, **{**options(kind), **kind.carrying, "lr": lr}, backend=backend)
    run(rng, 3, opt)
    freed = take(opt)
    storage = freed.untyped_storage()
    values, size = storage.clone(), storage.nbytes()
    storage.resize_(0)
    kept = [p.detach().clone() for p in params if p is not freed]
    give_gradients(rng, opt)
    with pytest.raises((ValueError, RuntimeError), match=r"memory|allocated"):
        opt.step()
    assert_same_bits((p for p in params if p is not freed), kept)
    storage.resize_(size)
    storage.copy_(values)
    run(rng, 1, opt)
    assert opt.metrics()["steps"] == 4


FREED = {
    "parameter": lambda opt: parameters_of(opt)[1],
    "tensor lr": lambda opt: opt.param_groups[0]["lr"],
}


def inheriting(readers, function, *args):
    """In a process of its own: with this process's backends."""
    emulating.inherit()
    native.tensor_readers = readers
    function(*args)


def in_a_process(function, *args):
    """Call it where a crash does no harm; what it says stands in the captured output."""
    spawning = multiprocessing.get_context("spawn")
    process = spawning.Process(target=inheriting, args=(native.tensor_readers, function, *args))
    process.start()
    process.join(300)
    ended = process.exitcode
    process.kill()
    assert ended == 0, f"{function.__name__}: exit code {ended}"


def step_after_all(seed, name, backend):
    kind = named(name)
    for move in (shared, sent, sent_itself, freed_and_back):
        print(move.__doc__, flush=True)
        step_after(move, seed, kind, backend)


def refuse_all_freed(seed, name, backend):
    kind = named(name)
    moments = {
        key: lambda opt, key=key: states_of(opt)[1][key] for key in kind.sizes if kind.has_state
    }
    for name, take in {**FREED, **moments}.items():
        print("freed:", name, flush=True)
        refuse_freed(take, seed, kind, backend)


def move_and_free_counts(seed, backend):
    for kind in KINDS:
        print(kind.name, flush=True)
        rng = fresh_rng(seed)
        moved, other = two_of_ours(rng, kind, backend)
        shared(moved)
        assert_same_steps(rng, moved, other)
        for key in counts_of(other):
            refuse_freed(lambda opt, key=key: states_of(opt)[1][key], seed, kind, backend)


def test_counts_move_with_their_storage_and_are_refused_without(rng, backend):
    """Those of every kind of optimizer, and the numbers that go from update to update."""
    in_a_process(move_and_free_counts, int(rng.numpy.integers(2**31)), backend)


@with_state
def test_storage_of_moments_and_counts_may_move(rng, kind, backend):
    """share_memory_(), torch.multiprocessing's queues, offloading: moments and counts at another
    address are found there, as in torch."""
    in_a_process(step_after_all, int(rng.numpy.integers(2**31)), kind.name, backend)


def test_freed_storage_is_refused(rng, kind, backend):
    """The storage of a parameter, a moment or a Tensor lr resized to 0 after a step: an error,
    nothing changed; resized back, the run goes on."""
    in_a_process(refuse_all_freed, int(rng.numpy.integers(2**31)), kind.name, backend)

"""What a snapshot is: its bytes, its form on disk, and that taking it changes nothing."""

import io
import pickle

import pytest
import torch
from lib.contract import assert_unchanged, make_parameters, run, snapshot, warmup
from lib.layouts import LAYOUTS
from lib.runs import assert_same_bits
from torch import distributed

import lrfused
from lrfused import schedules as S

CARRIED = {"adamw": 2, "sgd": 1, "sgd without momentum": 1, "lion": 0}


def tensors_in(data):
    """All tensors in plain data; whatever else is in it has to be plain, too."""
    if isinstance(data, torch.Tensor):
        return [data]
    if isinstance(data, dict):
        assert all(type(key) is str for key in data)
        return tensors_in(list(data.values()))
    if isinstance(data, list):
        return [tensor for part in data for tensor in tensors_in(part)]
    assert data is None or type(data) in (str, int, float), type(data)
    return []


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.complex64])
def test_its_bytes_are_those_of_the_formula(rng, kind, dtype):
    params = make_parameters(rng, dtype, ((7, 5), (), (0, 3), (13,)))
    opt = kind.ours(params, lr=warmup())
    before = opt.snapshot().nbytes
    run(rng, 2, opt)
    taken = opt.snapshot()
    elements, size = 7 * 5 + 1 + 13, dtype.itemsize
    of_counts = 4 * (8 + 8 * CARRIED[kind.name])
    assert before == elements * size + of_counts
    assert taken.nbytes == elements * size * (1 + len(kind.moments)) + of_counts
    assert taken.nbytes == sum(x.numel() * x.element_size() for x in tensors_in(vars(taken)))
    assert repr(taken) == f"<Snapshot of {opt.rule.name} at step 2, {taken.nbytes} bytes>"


def test_a_view_into_large_memory_is_copied_without_the_rest(rng):
    (weight,) = (torch.nn.Parameter(torch.zeros(1000, 1000)[::100, ::7]),)
    opt = lrfused.SGD([weight])
    taken, memory = opt.snapshot(), io.BytesIO()
    torch.save(taken, memory)
    assert taken.nbytes == 4 * 10 * 143 + 16
    assert len(memory.getvalue()) < taken.nbytes + 8000


def test_taking_one_changes_nothing(rng, kind, backend):
    opt = kind.ours(make_parameters(rng), lr=warmup(), loss_scale="dynamic", backend=backend)
    opt.snapshot()
    assert not opt.state
    run(rng, 2, opt)
    before, table = snapshot(opt), opt._engine.table
    opt.snapshot()
    with torch.inference_mode():
        opt.snapshot("cpu")
    assert_unchanged(opt, before)
    run(rng, 1, opt)
    assert opt._engine.table is table


def test_it_travels(rng, kind):
    opt = kind.ours(make_parameters(rng), lr=warmup(), **kind.carrying)
    run(rng, 3, opt)
    taken, memory = opt.snapshot(), io.BytesIO()
    torch.save({"rewind to": taken}, memory)
    memory.seek(0)
    loaded = torch.load(memory, weights_only=True)["rewind to"]
    for other in (loaded, pickle.loads(pickle.dumps(taken))):
        assert type(other) is type(taken) and other.nbytes == taken.nbytes
        for a, b in zip(tensors_in(vars(other)), tensors_in(vars(taken)), strict=True):
            assert_same_bits(a, b)
        others = [{k: v for k, v in vars(x).items() if not tensors_in(v)} for x in (other, taken)]
        assert others[0] == others[1]


@pytest.mark.parametrize("device", ["meta", "nowhere", torch.device("meta")])
def test_a_device_without_memory_is_refused(device):
    opt = lrfused.SGD([torch.nn.Parameter(torch.zeros(2))])
    with pytest.raises(ValueError, match="device: must "):
        opt.snapshot(device)
    with pytest.raises(TypeError, match=r"device: must be a device or None, got 1\.5"):
        opt.snapshot(1.5)


def test_freed_memory_is_refused():
    weight = torch.nn.Parameter(torch.zeros(2))
    opt = lrfused.SGD([weight])
    taken = opt.snapshot()
    weight.untyped_storage().resize_(0)
    with pytest.raises(ValueError, match=r"snapshot: a parameter of shape \(2,\) has no memory"):
        opt.snapshot()
    with pytest.raises(ValueError, match=r"rewind: parameter 0 of shape \(2,\) has no memory"):
        opt.rewind(taken)


# Odd tensors


def goes_back(rng, opt, steps=2):
    """Steps, a snapshot, as many steps twice: they end in the same bits, next to which nothing
    is written."""
    run(rng, steps, opt)
    taken, state = opt.snapshot(), rng.torch.get_state()
    ends = []
    for _ in range(2):
        run(rng, steps, opt)
        ends.append(
            [p.detach().clone() for g in opt.param_groups for p in g["params"]]
            + [x.clone() for s in opt.state.values() for x in s.values()]
        )
        opt.rewind(taken)
        rng.torch.set_state(state)
    for a, b in zip(*ends, strict=True):
        assert_same_bits(a, b)
    return taken


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tensors_that_lie_oddly(rng, kind, layout):
    value = LAYOUTS[layout](torch.randn(3, 4, 5, 2, generator=rng.torch))
    weight = torch.nn.Parameter(value)
    memory = torch.empty(0).set_(value.untyped_storage())  # all of it
    outside = torch.ones_like(memory, dtype=torch.bool)
    outside.as_strided(value.shape, value.stride(), value.storage_offset()).fill_(False)
    before = memory[outside]
    taken = goes_back(rng, kind.ours([weight], lr=warmup()))
    assert_same_bits(weight.detach(), taken.weights[0])
    assert_same_bits(memory[outside], before)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128, torch.float16])
def test_other_dtypes(rng, kind, dtype):
    params = make_parameters(rng, dtype, ((3, 2), (), (0,)))
    goes_back(rng, kind.ours(params, lr=warmup()))


def test_lazy_bits(rng, kind):
    """A conjugate and a negative that torch only notes."""
    (value,) = make_parameters(rng, torch.complex64, ((3, 2),))
    with torch.no_grad():
        for view in (value.detach().clone().conj(), torch._neg_view(value.detach().clone())):
            weight = torch.nn.Parameter(view)
            before = weight.clone().resolve_conj().resolve_neg()
            opt = kind.ours([weight], lr=warmup())
            taken = opt.snapshot()
            run(rng, 2, opt)
            opt.rewind(taken)
            assert_same_bits(weight.clone().resolve_conj().resolve_neg(), before)


@pytest.mark.parametrize("inside", [False, True])
def test_in_inference_mode(rng, kind, inside):
    """Over inference tensors, too; what was made there may be written outside of it."""
    with torch.inference_mode(inside):
        opt = kind.ours(make_parameters(rng), lr=warmup(), **kind.carrying)
    with torch.inference_mode():
        goes_back(rng, opt)
        taken = opt.snapshot()
        assert not any(x.is_inference() for x in tensors_in(vars(taken)))
    if not inside:
        run(rng, 1, opt)
        opt.rewind(taken)
        assert opt.metrics()["steps"] == taken.step


def test_no_parameters_at_all():
    opt = lrfused.AdamW([{"params": [], "lr": S.linear(1.0, 0.0, 3)}])
    taken = opt.snapshot("cpu")
    opt.rewind(taken)
    assert (taken.nbytes, opt.metrics()["steps"]) == (0, 0)


def test_dtensors_are_copied_by_their_local_part(rng, kind):
    """The state of one that has none yet is a DTensor, too."""
    if not distributed.is_gloo_available():
        pytest.skip("no gloo here")
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

        mesh = distributed.device_mesh.init_device_mesh("cpu", (1,))
        values = [torch.randn(5, 3, generator=rng.torch), torch.randn(7, generator=rng.torch)]

        def made(placement):
            parts = [distribute_tensor(v.clone(), mesh, [placement]) for v in values]
            return kind.ours([torch.nn.Parameter(part) for part in parts], lr=warmup())

        def stepped(opt, seed):
            generator = torch.Generator().manual_seed(seed)
            for p in opt.param_groups[0]["params"]:
                g = torch.randn(p.shape, generator=generator)
                p.grad = distribute_tensor(g, p.device_mesh, p.placements)
            opt.step()
            return [p.to_local().clone() for p in opt.param_groups[0]["params"]]

        ours, other = made(Shard(0)), made(Shard(0))
        stepped(ours, 1)
        taken = ours.snapshot()
        assert all(type(x) is torch.Tensor for x in tensors_in(vars(taken)))
        want = stepped(ours, 2)
        for opt in (ours, other):
            opt.rewind(taken)
            for state in opt.state.values():
                assert all(isinstance(state[key], DTensor) for key in kind.moments)
            for a, b in zip(stepped(opt, 2), want, strict=True):
                assert_same_bits(a, b)
        with pytest.raises(ValueError, match=r"snapshot: parameter 0 is distributed as \(Shard"):
            made(Replicate()).rewind(taken)
    finally:
        distributed.destroy_process_group()

"""DTensor parameters: each process steps its local tensor."""

import copy

import pytest
import torch
from lib.contract import parameters_of, warmup
from lib.optimizers import with_state
from torch import distributed


@pytest.fixture
def mesh():
    """A group of this process alone."""
    if not distributed.is_gloo_available():
        pytest.skip("no gloo here")
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        yield distributed.device_mesh.init_device_mesh("cpu", (1,))
    finally:
        distributed.destroy_process_group()


def test_a_dtensor_is_stepped_by_its_local_tensor(rng, kind, mesh, backend):
    """Parameters, gradients and state are DTensors as with torch.optim.AdamW, with equal values."""
    from torch.distributed.tensor import DTensor, Shard, distribute_tensor

    def random(shape):
        return torch.randn(shape, generator=rng.torch)

    def distributed_parameters(values):
        return [torch.nn.Parameter(distribute_tensor(v.clone(), mesh, [Shard(0)])) for v in values]

    values = [random((5, 3)), random((7,))]
    ours = kind.ours(distributed_parameters(values), lr=warmup(), backend=backend)
    plain = kind.ours([torch.nn.Parameter(v.clone()) for v in values], lr=warmup())
    for _ in range(3):
        gradients = [random(v.shape) for v in values]
        couples = zip(parameters_of(ours), parameters_of(plain), gradients, strict=True)
        for p, q, g in couples:
            p.grad, q.grad = distribute_tensor(g.clone(), mesh, [Shard(0)]), g.clone()
        ours.step()
        plain.step()
    assert ours.metrics() == plain.metrics()
    for p, q in zip(parameters_of(ours), parameters_of(plain), strict=True):
        assert isinstance(p, DTensor) and torch.equal(p.to_local(), q)
        for key in kind.moments:
            assert isinstance(ours.state[p][key], DTensor)
            assert torch.equal(ours.state[p][key].to_local(), plain.state[q][key])


@with_state
@pytest.mark.parametrize("used", [False, True])
def test_the_state_of_dtensors_loads(rng, kind, mesh, used):
    """load_state_dict over DTensor moments, into an optimizer without state and into one that has
    some: goes on bit-equal, in the memory that is in use."""
    from torch.distributed.tensor import Shard, distribute_tensor

    def random(shape):
        return torch.randn(shape, generator=rng.torch)

    def build(values):
        params = [
            torch.nn.Parameter(distribute_tensor(v.clone(), mesh, [Shard(0)])) for v in values
        ]
        return kind.ours(params, lr=warmup(), **kind.widest)

    def train(steps, *optimizers):
        for _ in range(steps):
            for params in zip(*map(parameters_of, optimizers), strict=True):
                gradient = random(params[0].shape)
                for p in params:
                    p.grad = distribute_tensor(gradient.clone(), mesh, [Shard(0)])
            for opt in optimizers:
                opt.step()

    values = [random((5, 3)), random((7,))]
    opt, other = build(values), build(values)
    train(3, opt)
    if used:
        train(2, other)
    moments = [s[kind.moments[0]]._local_tensor.data_ptr() for s in other.state.values()]
    other.load_state_dict(copy.deepcopy(opt.state_dict()))
    now = [s[kind.moments[0]]._local_tensor.data_ptr() for s in other.state.values()]
    assert now == moments or not used
    for p, q in zip(parameters_of(other), parameters_of(opt), strict=True):
        p.data.copy_(q.data)
    train(3, opt, other)
    for p, q in zip(parameters_of(opt), parameters_of(other), strict=True):
        assert torch.equal(p.to_local(), q.to_local())
        for key in kind.sizes:
            assert torch.equal(opt.state[p][key].to_local(), other.state[q][key].to_local())
    opt.load_state_dict(opt.state_dict())
    train(1, opt, other)
    assert opt.metrics() == other.metrics()


@with_state
def test_a_moment_that_is_placed_otherwise_is_refused(rng, kind, mesh):
    """A loaded DTensor on other placements than its parameter's: ValueError, nothing changed."""
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    value = torch.randn((4, 3), generator=rng.torch)
    param = torch.nn.Parameter(distribute_tensor(value.clone(), mesh, [Shard(0)]))
    opt = kind.ours([param])
    param.grad = distribute_tensor(value.clone(), mesh, [Shard(0)])
    opt.step()
    saved = copy.deepcopy(opt.state_dict())
    saved["state"][0][kind.moments[0]] = distribute_tensor(value.clone(), mesh, [Replicate()])
    with pytest.raises(ValueError, match="placements"):
        opt.load_state_dict(saved)
    assert opt.metrics()["steps"] == 1


@pytest.mark.parametrize("key", ["lrfused_mask", "lrfused_average"])
def test_a_rider_that_is_placed_otherwise_is_refused(rng, kind, mesh, key):
    """A loaded mask or average that is a plain tensor, or on other placements than its parameter:
    an error that names it, nothing changed; a DTensor as the parameter loads."""
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    def placed(value, placement):
        return distribute_tensor(value.clone(), mesh, [placement])

    value = torch.randn((4, 3), generator=rng.torch)
    param = torch.nn.Parameter(placed(value, Shard(0)))
    opt = kind.ours([param], ema_decay=0.9)
    opt.set_masks({param: placed(value > 0, Shard(0))})
    param.grad = placed(value, Shard(0))
    opt.step()
    good = copy.deepcopy(opt.state_dict())
    other = ~(value > 0) if key == "lrfused_mask" else value
    for wrong in (other, placed(other, Replicate())):
        saved = copy.deepcopy(good)
        saved["state"][0][key] = wrong
        with pytest.raises((ValueError, TypeError), match=key):
            opt.load_state_dict(saved)
        assert torch.equal(opt.masks[param].to_local(), value > 0)
        average = opt.state[param]["lrfused_average"]
        assert torch.equal(average.to_local(), good["state"][0]["lrfused_average"].to_local())
    saved["state"][0][key] = placed(other, Shard(0))
    opt.load_state_dict(saved)
    masked = value.masked_fill(value <= 0, 0)
    found, want = (
        (opt.masks[param], other) if key == "lrfused_mask" else (opt.state[param][key], masked)
    )
    assert torch.equal(found.to_local(), want)

"""DTensor parameters: each process steps its local tensor."""

import pytest
import torch
from torch import distributed

import lrfused

from .helpers import parameters_of, warmup


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


def test_a_dtensor_is_stepped_by_its_local_tensor(rng, mesh, backend):
    """Parameters, gradients and state are DTensors as with torch.optim.AdamW, with equal values."""
    from torch.distributed.tensor import DTensor, Shard, distribute_tensor

    def random(shape):
        return torch.randn(shape, generator=rng.torch)

    def distributed_parameters(values):
        return [torch.nn.Parameter(distribute_tensor(v.clone(), mesh, [Shard(0)])) for v in values]

    values = [random((5, 3)), random((7,))]
    ours = lrfused.AdamW(distributed_parameters(values), lr=warmup(), backend=backend)
    plain = lrfused.AdamW([torch.nn.Parameter(v.clone()) for v in values], lr=warmup())
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
        for key in ("exp_avg", "exp_avg_sq"):
            assert isinstance(ours.state[p][key], DTensor)
            assert torch.equal(ours.state[p][key].to_local(), plain.state[q][key])

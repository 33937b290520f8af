"""torch.compile of every optimizer's step: one graph, the eager step's bits."""

import pytest
import torch
from lib.optimizers import KINDS

import lrfused
from lrfused import schedules

from .helpers import COMPILERS_WARNINGS, compiled, fresh_dynamo, graphs  # noqa: F401

pytestmark = COMPILERS_WARNINGS
STEPS = 12


def parameters(values):
    return [torch.nn.Parameter(value.clone()) for value in values]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_scheduled_steps_are_one_graph_and_equal_eager(rng, kind):
    """Schedules of all hyperparameters, clip, dynamic loss scale with a skipped step."""
    values = [torch.randn(shape, generator=rng.torch) for shape in ((5, 3), (), (0,), (65,))]
    options = {
        "lr": schedules.warmup_cosine(0.01, 2, STEPS),
        "max_grad_norm": 0.5,
        "loss_scale": lrfused.LossScale(init=64.0, growth_interval=3),
        **kind.scheduled,
    }
    runs = []
    for wrap in (compiled, lambda step: step):
        params = parameters(values)
        opt = kind.ours(params, **options)
        opt.scale(torch.zeros(()))
        runs.append((params, opt, wrap(opt.step)))
    for t in range(STEPS):
        gradients = [64.0 * torch.randn(v.shape, generator=rng.torch) for v in values]
        if t == 4:
            gradients[0][0, 0] = torch.inf
        for params, _, step in runs:
            for p, g in zip(params, gradients, strict=True):
                p.grad = g.clone()
            step()
    (mine, opt, _), (theirs, eager, _) = runs
    assert graphs() == 1 and opt.metrics() == eager.metrics()
    assert opt.metrics()["skipped_steps"] == 1
    for p, q in zip(mine, theirs, strict=True):
        assert torch.equal(p, q)
        for key in kind.keys:
            assert torch.equal(opt.state[p][key], eager.state[q][key])

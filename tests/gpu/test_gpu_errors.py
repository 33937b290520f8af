"""An error on the device is latched, and raised later with the step that it is of."""

import pytest
import torch
from lib.runs import FEW, assert_same_bits, assert_same_contents, random_problem

from lrfused import schedules as S
from lrfused.device.readback import LONGEST_PAUSE

from .helpers import fill, left, on, start_on
from .target import wait

pytestmark = pytest.mark.gpu

INF = float("inf")


def started(rng, target, steps, **options):
    problem = on(target.device, random_problem(rng, FEW, steps + 1, none=0.0))
    made = start_on(target, problem.values, **options)
    for gradients in problem.gradients[:steps]:
        fill(made, gradients)
        made.opt.step()
    return made, problem.gradients[steps]


@pytest.mark.parametrize("value", [INF, float("nan")])
@pytest.mark.parametrize("asked", ["metrics", "state_dict"])
def test_a_gradient_that_is_not_finite(rng, target, rule, asked, value):
    """With nonfinite="raise": nothing is changed, and who asks next is told."""
    made, gradients = started(rng, target, 3, nonfinite="raise")
    before = [p.detach().clone() for p in made.params]
    gradients[3].view(-1)[64] = value
    fill(made, gradients)
    with pytest.raises(RuntimeError, match="step 3: a gradient is not finite"):
        made.opt.step()
        getattr(made.opt, asked)()
    for p, q in zip(made.params, before, strict=True):
        assert_same_bits(p, q)
    assert made.opt.metrics()["steps"] == 3  # raised once


def test_a_later_step_raises(rng, target):
    """As soon as the host has seen it: a step says so, without having waited."""
    made, gradients = started(rng, target, 3, nonfinite="raise")
    good = [g.clone() for g in gradients]
    gradients[2].fill_(INF)
    fill(made, gradients)
    with pytest.raises(RuntimeError, match="step 3: a gradient is not finite"):
        made.opt.step()
        wait()
        fill(made, good)
        for _ in range(LONGEST_PAUSE + 1):  # it is seen once in so many steps
            made.opt.step()
            wait()


@pytest.mark.parametrize("slot", ["lr", "weight_decay"])
def test_an_unusable_hyperparameter(rng, target, rule, slot):
    """A schedule becomes nan at the fifth step."""
    schedule = S.select(S.less(S.step, 5), 1e-3, float("nan"))
    made, gradients = started(rng, target, 5, max_grad_norm=1.0, **{slot: schedule})
    before = left(made)
    fill(made, gradients)
    with pytest.raises(RuntimeError, match=rf"step 5: {slot} of param_groups\[0\] is nan"):
        made.opt.step()
        made.opt.metrics()
    after = left(made)
    for name in ("counts", "carried", *(f"{rule.keys[0]}[{i}]" for i in range(len(FEW)))):
        assert_same_bits(after[name], before[name], name)


def test_an_error_during_a_replay(rng, target, rule):
    """The graph goes on, the first error is kept."""
    if target.dry:
        pytest.skip("nothing is captured on a CPU")
    made, gradients = started(rng, target, 3, nonfinite="raise")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made.opt.step()
    before = left(made)
    good = [g.clone() for g in gradients]
    gradients[2].fill_(INF)
    fill(made, gradients)
    graph.replay()
    with pytest.raises(RuntimeError, match="step 3: a gradient is not finite"):
        made.opt.metrics()
    state = [name for name in before if name.startswith(rule.keys)]
    assert state
    assert_same_contents(
        {name: left(made)[name] for name in state}, {name: before[name] for name in state}
    )
    fill(made, good)
    graph.replay()
    assert made.opt.metrics()["steps"] == 4

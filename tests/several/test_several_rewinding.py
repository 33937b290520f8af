"""Rewinding an optimizer whose parameters are on several devices."""

from lib.fake_devices import start_apart
from lib.options import LR
from lib.runs import FEW, advance, assert_same_run, random_problem, shorter, start

OPTIONS = {"lr": LR, "max_grad_norm": 0.5, "loss_scale": "dynamic"}


def test_the_steps_after_a_rewind_are_the_reference_s(rng, backend, rule):
    """Each device has a share of the work, and copies of what the lead decided."""
    problem = random_problem(rng, FEW, shorter(backend, 8, least=4))
    half = len(problem.gradients) // 2
    made, want = start_apart(problem.values, backend, **OPTIONS), start(problem.values, **OPTIONS)
    for gradients in problem.gradients[:half]:
        advance(made, gradients)
        advance(want, gradients)
    taken = made.opt.snapshot()
    for gradients in problem.gradients[half:]:
        advance(made, gradients)
    made.opt.rewind(taken)
    del made.metrics[half:]
    for gradients in problem.gradients[half:]:
        advance(made, gradients)
        advance(want, gradients)
    assert_same_run(made, want)

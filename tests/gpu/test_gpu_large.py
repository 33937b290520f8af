"""Many steps, and more elements than 32 bits can count."""

import pytest
import torch
from lib.runs import assert_same_bits, needs_cpp, random_problem, start

import lrfused
from lrfused import schedules as S

from .helpers import assert_same_end, on, start_on, step_with
from .target import wait

pytestmark = pytest.mark.gpu

ODD = [(1,), (3, 5), (63,), (65,), (513,), (127, 31)]


@needs_cpp
def test_a_hundred_thousand_steps_at_odd_sizes(rng, target):
    """The same bits as the C++ backend's, clipped and scheduled, gradients in turns."""
    steps = target.count(100_000, dry=500)
    lr = S.warmup_cosine(1e-3, warmup_steps=steps // 10, total_steps=steps)
    options = {"lr": lr, "max_grad_norm": 1.0, "betas": (0.9, S.linear(0.9, 0.999, steps))}
    problem = random_problem(rng, ODD, 7, none=0.0)
    there = on(target.device, problem.gradients)
    got = start_on(target, problem.values, **options)
    want = start(problem.values, "cpu", **options)
    for step in range(steps):
        step_with(got, there[step % 7])
        step_with(want, problem.gradients[step % 7])
        if step % 1000 == 999:
            wait()  # or the host's errors would show hours late
    assert got.opt.metrics()["steps"] == steps
    assert_same_end(got, want)


def test_more_elements_than_32_bits_can_count(rng, target):
    """2^31 + 8 bfloat16 elements that repeat: every period has the bits of a small tensor's."""
    count, period = target.count(2**31 + 8, dry=2**14 + 8), target.count(1_000_003, dry=1003)
    if target.device.type == "cuda" and torch.cuda.mem_get_info()[0] < 14 * count:
        pytest.skip("too little memory")
    small = random_problem(rng, [(period,)], 2, (torch.bfloat16,), none=0.0)
    options = {"lr": S.linear(1e-2, 1e-3, 10), "clip_value": 2.0, "always_measure": True}

    def repeated(values):
        """In the target's memory, a period at a time."""
        whole = torch.empty(count, dtype=values.dtype, device=target.device)
        rows = count // period
        whole[: rows * period].view(rows, period).copy_(values.to(target.device))
        whole[rows * period :] = values[: count - rows * period].to(target.device)
        return whole

    param = torch.nn.Parameter(repeated(small.values[0]))
    opt = lrfused.AdamW([param], backend=target.backend, **options)
    want = start(small.values, "reference", **options)
    for (gradient,) in small.gradients:
        param.grad = repeated(gradient)
        opt.step()
        step_with(want, [gradient])
    squares = small.gradients[-1][0].double().square()
    norm = float(squares.sum() * (count // period) + squares[: count % period].sum()) ** 0.5
    assert opt.metrics()["grad_norm"] == pytest.approx(norm, rel=1e-3)
    state = want.opt.state[want.params[0]]
    for got, one in [
        (param, want.params[0]),
        (opt.state[param]["exp_avg"], state["exp_avg"]),
        (opt.state[param]["exp_avg_sq"], state["exp_avg_sq"]),
    ]:
        one = one.detach().to(target.device)
        for begin in range(0, count, period):
            piece = got.detach()[begin : begin + period]
            if not torch.equal(piece, one[: len(piece)]):
                assert_same_bits(piece.cpu(), one[: len(piece)].cpu(), f"from {begin}")

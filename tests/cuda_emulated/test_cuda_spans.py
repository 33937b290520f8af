"""Several spans of 256 chunks, and units that are one chunk, or lie in one span or in several."""

import pytest
import torch
from lib.runs import Problem, advance, assert_same_run, random_problem, run, start

from lrfused import schedules as S

pytestmark = pytest.mark.usefixtures("cuda")

INF = float("inf")
# Rows are units: each a chunk, or two where they are longer than 65,536.
MANY_ROWS = [(300, 2), (5,), (331, 3), (), (129, 1)]
# A unit of two chunks inside the first span; one that begins as its last chunk; one whose chunks
# are the first of the third; short ones between them.
LONG_ROWS = [(3,), (1, 66000), (252, 1), (1, 65537), (253, 2), (2, 65600), (7, 3)]
SCHEDULES = {"agc": S.linear(0.2, 0.01, 4), "clip_value": S.linear(0.5, 0.1, 4)}
OPTIONS = {
    "agc": {"agc": 0.05},
    "agc, clip by value": SCHEDULES,
    "agc by tensor": {"agc": 0.05, "agc_by": "tensor"},
    "clip by value": {"clip_value": 0.3},
    "infinity norm": {"agc": 0.05, "clip_value": 0.3, "norm_type": INF},
}


@pytest.mark.parametrize("shapes", [MANY_ROWS, LONG_ROWS], ids=["short", "long"])
@pytest.mark.parametrize("name", OPTIONS)
def test_as_the_reference(rng, rule, cuda, name, shapes):
    """In random orders of blocks, with parameters that have no gradient."""
    problem = random_problem(rng, shapes, 2, none=0.3)
    options = {"max_grad_norm": 0.3, **OPTIONS[name]}
    want = run(problem, **options)
    for _ in range(2):
        cuda.seed(int(rng.numpy.integers(2**63)))
        assert_same_run(run(problem, "cuda", **options), want)


def test_groups_of_every_kind_in_one_span(rng, rule):
    """Thresholds of their own; two start later, one with a threshold that no step may use yet."""
    problem = random_problem(rng, [(40, 3), (90,), (70, 2), (2, 66000), (31, 5)] * 2, 4, none=0.3)
    groups = (
        {"agc": S.linear(0.1, 0.01, 3)},
        {"agc": 0.02, "clip_value": S.linear(0.2, 0.1, 3), "start_step": 1},
        {},
        {"clip_value": 0.1},
        {"agc": S.step - 3.0, "start_step": 3},
    )
    want = run(problem, groups=groups, max_grad_norm=0.3)
    assert_same_run(run(problem, "cuda", groups=groups, max_grad_norm=0.3), want)


def test_without_gradients_nothing_enters_the_norm(rng):
    """Where unscaling is by infinity, 0 times that is no number."""
    problem = random_problem(rng, [(3, 2), (4,)], 2, none=0.0)
    problem.gradients[1][0] = None
    options = {"groups": ({"agc": 0.1}, {}), "max_grad_norm": 1.0, "nonfinite": "propagate"}
    runs = []
    for backend in ("reference", "cuda"):
        made = start(problem.values, backend, **options)
        advance(made, problem.gradients[0])
        made.opt.grad_scale = 1e-200
        advance(made, problem.gradients[1])
        runs.append(made)
    assert_same_run(*runs)
    assert runs[0].metrics[1]["clip_coefficient"] == 0.0


def test_a_unit_of_more_chunks_than_a_span_has(rng):
    count = 65536 * 256 + 5
    values = [torch.zeros(3, 2), torch.zeros(count, dtype=torch.bfloat16)]
    gradients = [torch.randn(v.shape, generator=rng.torch).to(v.dtype) for v in values]
    values = [torch.full_like(v, 0.5) for v in values]
    problem = Problem(values, [gradients])
    options = {"agc": 0.001, "agc_by": "tensor", "max_grad_norm": 0.01}
    assert_same_run(run(problem, "cuda", **options), run(problem, **options))


def test_every_ticket_returns_to_0(rng):
    problem = random_problem(rng, LONG_ROWS, 2)
    step = run(problem, "cuda", agc=0.05, max_grad_norm=0.3).opt._engine.table.run
    spans = 3
    sums = spans * 6 * 8
    tickets = step._workspace[step.step.decided_end + sums :]
    assert len(tickets) >= 4 * (spans + 4) and not tickets.any()

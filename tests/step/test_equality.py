"""The kernels equal the reference bit for bit: every option, alone and combined, any size."""

import pytest
import torch
from lib.options import LR, POISONED, over_every_option, poison, random_options, single_options
from lib.runs import (
    DTYPES,
    EDGES,
    FEW,
    INSTRUCTION_SETS,
    SMALL,
    advance,
    assert_as_reference,
    assert_same_contents,
    assert_same_run,
    contents,
    instruction_sets,
    needs_cpp,
    parameters,
    random_problem,
    run,
    shorter,
    start,
    words,
)

from lrfused import schedules as S


@over_every_option
def test_every_option(rng, kernels, rule, name):
    """Every option over a long run (of AdamW; a shorter one of others)."""
    steps = shorter(kernels, 40 if rule.name == "adamw" else 30, least=8)
    problem = random_problem(rng, FEW, steps)
    if name in POISONED:
        problem = poison(rng, problem, 2 / steps)
    assert_as_reference(problem, kernels, **single_options(rule)[name])


@pytest.mark.parametrize("trial", range(8))
def test_random_combinations(rng, kernels, rule, trial):
    """Two groups, any dtypes, now and then a gradient that is not finite."""
    problem = random_problem(
        rng, SMALL, shorter(kernels, 30, least=6), DTYPES, DTYPES, exponents=(-3, 2)
    )
    assert_as_reference(poison(rng, problem, 0.02), kernels, **random_options(rng))


@pytest.mark.parametrize("trial", range(4))
def test_sizes_at_the_edges_of_blocks_and_chunks(rng, kernels, rule, trial):
    """Enough elements for several threads; every thread count and instruction set."""
    options = random_options(rng)
    steps = shorter(kernels, 3, least=2)
    problem = random_problem(rng, [*EDGES, (8193,), (3, 8200)], steps, DTYPES, DTYPES)
    want = run(problem, **options)
    for threads in (1, 2, 3, 4) if kernels == "cpu" else (1,):
        torch.set_num_threads(threads)
        names = instruction_sets(kernels)
        chosen = names[(trial + threads) % len(names)]
        assert_same_run(run(problem, kernels, instruction_set=chosen, **options), want)


def test_units_of_several_chunks(rng, kernels, rule):
    problem = random_problem(rng, [(2, 65537), (70000,), (3, 5)], 1)
    groups = ({}, {"clip_value": 1e-3})
    assert_as_reference(problem, kernels, agc=0.01, max_grad_norm=0.1, groups=groups)


@pytest.mark.parametrize("exponent", [-30, -21, 19, 20])
@pytest.mark.parametrize("clips", [False, True])
def test_squares_that_leave_float32(rng, kernels, rule, exponent, clips):
    """Seen in grad_norm, and after the value clip in the factors of adaptive clipping."""
    size = 10.0**exponent
    options = {"clip_value": size / 3, "agc": size / 1e3, "accumulation_steps": 3} if clips else {}
    problem = random_problem(rng, [(700,), (20000,)], 1, exponents=(exponent, exponent))
    zeros = problem.map_gradients(lambda g: g * (torch.rand(g.shape, generator=rng.torch) < 0.01))
    assert_as_reference(zeros, kernels, max_grad_norm=1.0, **options)


def test_two_runs_have_the_same_bits(rng, kernels, rule):
    problem = random_problem(rng, [(20000,), (513,)], 2)
    options = {"max_grad_norm": 0.5, "clip_value": 0.3, "agc": 0.1, **rule.largest}
    first, second = (run(problem, kernels, **options) for _ in range(2))
    assert_same_contents({**contents(first), **words(first)}, {**contents(second), **words(second)})


# What comes, goes and changes


def test_a_parameter_whose_first_gradient_comes_late(rng, kernels, rule):
    problem = random_problem(rng, [(5,), (7,), (9,)], 12)
    for step in range(6):
        problem.gradients[step][1] = None
    got = assert_as_reference(problem, kernels, max_grad_norm=1.0)
    first, late, _ = contents(got)["counts"].tolist()
    assert late < first


def test_groups_that_are_added_and_options_that_change_in_mid_run(rng, kernels, rule):
    third = shorter(kernels, 10)
    problem = random_problem(rng, SMALL, 3 * third, none=0.1)

    def changing(backend):
        made = start(problem.values[:5], backend, lr=LR, max_grad_norm=1.0)
        late = parameters(problem.values[5:])
        for step, gradients in enumerate(problem.gradients):
            if step == third:
                made.opt.add_param_group({"params": late, "clip_value": 0.3})
                made.params.extend(late)
            if step == 2 * third:
                made.opt.param_groups[0].update(maximize=True, weight_decay=0.5, **rule.largest)
            advance(made, gradients[: len(made.params)])
        return made

    assert_same_run(changing(kernels), changing("reference"))


@pytest.mark.filterwarnings("ignore:param_groups")
def test_numbers_that_the_caller_writes(rng, kernels, rule):
    """Over a schedule, and back; and weight decay, which is a number."""
    problem = random_problem(rng, FEW, 6)
    lr = S.warmup_cosine(1e-2, 2, 6)
    got, want = (start(problem.values, b, lr=lr) for b in (kernels, "reference"))
    for step, gradients in enumerate(problem.gradients):
        for made in (got, want):
            group = made.opt.param_groups[0]
            mirrored = group["lr"]
            if step == 2:
                group["lr"] = 0.5
            group["weight_decay"] = 0.01 * step
            advance(made, gradients)
            if step == 2:
                group["lr"] = mirrored
    assert_same_run(got, want)


# The C++ backend's choice


@needs_cpp
def test_the_instruction_set_that_is_asked_for_is_used(rng):
    problem = random_problem(rng, [(3,)], 1)
    for name in INSTRUCTION_SETS:
        made = run(problem, "cpu", instruction_set=name)
        assert made.opt._engine.table.run.instruction_set == name
    with pytest.raises(ValueError, match="instruction_set: this machine has no 'mmx'"):
        run(problem, "cpu", instruction_set="mmx")


@needs_cpp
def test_auto_is_the_cpp_backend_on_a_cpu(rng):
    problem = random_problem(rng, [(3,)], 1)
    assert run(problem, "auto").opt._engine.table.backend.name == "cpu"
    assert run(problem, "reference").opt._engine.table.backend.name == "reference"

"""Parameters on several devices in one optimizer: the bits of the reference, as on one device."""

import copy

import pytest
import torch
from lib.every_backend import parameter
from lib.fake_devices import DEVICES, FIRST, LEAD, SECOND, assert_equal, put, run_apart, start_apart
from lib.layouts import LAYOUTS
from lib.options import LR, POISONED, over_every_option, poison, random_options, single_options
from lib.runs import (
    DTYPES,
    FEW,
    SMALL,
    advance,
    alternating,
    assert_same_run,
    parameters,
    random_problem,
    run,
    shorter,
    start,
)
from lib.tiny_gradients import tiny_share, with_tiny

from lrfused import schedules as S

INF = float("inf")
EVERYTHING = {
    "lr": LR,
    "max_grad_norm": 0.5,
    "clip_value": S.linear(0.5, 0.1, 9),
    "agc": 0.1,
    "loss_scale": "dynamic",
}


@over_every_option
def test_every_option_on_several_devices(rng, backend, rule, name):
    problem = random_problem(rng, FEW, shorter(backend, 6))
    if name in POISONED:
        problem = poison(rng, problem, 0.1)
    assert_equal(problem, backend, **single_options(rule)[name])


@pytest.mark.parametrize("trial", range(6))
def test_random_combinations_on_several_devices(rng, backend, rule, trial):
    """On two or three devices, of which the lead may have no parameter at all."""
    steps = shorter(backend, 6)
    problem = random_problem(rng, SMALL, steps, DTYPES, DTYPES, exponents=(-3, 2))
    devices = [DEVICES[i] for i in rng.numpy.integers(0, 3, len(SMALL))]
    assert_equal(poison(rng, problem, 0.05), backend, devices, **random_options(rng))


def test_the_share_of_tiny_gradients_is_that_of_all_devices(rng, backend):
    shapes = [*SMALL, (66000,), (513,)]
    problem = random_problem(rng, shapes, shorter(backend, 6, least=2), DTYPES, DTYPES)
    problem = with_tiny(rng, problem)
    made = assert_equal(problem, backend, always_measure=True)
    for step, metrics in enumerate(made.metrics):
        assert metrics["tiny_gradients"] == tiny_share(problem, step)


@pytest.mark.parametrize("norm_type", [2.0, INF])
def test_chunks_stay_in_the_order_of_the_table(rng, backend, rule, norm_type):
    """Parts and tiles of several chunks, units longer than one; devices take turns."""
    problem = random_problem(rng, [(66000,), (2, 65537), (513,), (0, 3), (16385,), (3, 8)], 1)
    assert_equal(problem, backend, **{**EVERYTHING, **rule.largest, "norm_type": norm_type})


@pytest.mark.parametrize("backend", [parameter("cuda"), parameter("cuda-ptx")], indirect=True)
@pytest.mark.parametrize("options", [{"clip_value": LR}, {}], ids=repr)
def test_spans_and_units_on_several_devices(rng, backend, cuda, options):
    """Plan has a block for each span and each unit of several chunks, wherever these lie."""
    shapes = [(200, 2), (1, 66000), (54, 1), (2, 65537), (300, 2), (), (1, 65537)]
    problem = random_problem(rng, shapes, 2, none=0.3)
    cuda.launches()
    assert_equal(problem, backend, agc=0.05, max_grad_norm=0.3, **options)
    assert [blocks for blocks, _ in cuda.launches()].count(3 + 4) == 2


def test_a_bound_that_an_input_moves(rng, backend, rule):
    """Peers evaluate it before there is a plan."""
    x = torch.tensor(0.0, dtype=torch.float64)
    problem = random_problem(rng, FEW, 5, none=0.0)

    def steps(made):
        for i, gradients in enumerate(problem.gradients):
            x.fill_(0.1 * (i + 1))
            advance(made, gradients)
        return made

    clip = S.input(x, "x") * S.linear(1.0, 0.3, 4)
    other = S.input(torch.tensor(0.5), "y")  # which only plan reads
    options = {"clip_value": clip, "max_grad_norm": 0.3, "lr": 0.1 * other}
    got = steps(start_apart(problem.values, backend, **options))
    assert_same_run(got, steps(start(problem.values, **options)))


@pytest.mark.parametrize("value", [INF, float("nan"), 1e38])
@pytest.mark.parametrize("place", range(4))
def test_an_overflow_anywhere_skips_everywhere(rng, backend, rule, value, place):
    """Also where it is only unscaling that overflows; the next step is as good as any."""
    problem = random_problem(rng, [(5,), (7,), (600,), (9,)], 4, none=0.0)
    problem.gradients[1][place].view(-1)[-1] = value
    options = {"loss_scale": 2.0**-30, "max_grad_norm": 1.0}
    got = assert_equal(problem, backend, [LEAD, FIRST, SECOND, FIRST], **options)
    assert got.opt.metrics()["skipped_steps"] == 1


@pytest.mark.parametrize("absent", [LEAD, FIRST, SECOND])
def test_a_device_without_any_gradient(rng, backend, rule, absent):
    problem = random_problem(rng, [(5,), (70,), (3, 3)] * 2, 4, none=0.0)
    for gradients in problem.gradients[1:3]:
        for i in range(6):
            if DEVICES[i % 3] == absent:
                gradients[i] = None
    assert_equal(problem, backend, **EVERYTHING, **rule.largest)


@pytest.mark.parametrize("measures", [True, False])
def test_first_gradients_that_come_late(rng, backend, rule, measures):
    """First there is one device, then two, then three."""
    problem = random_problem(rng, FEW, 6, none=0.0)
    for step, gradients in enumerate(problem.gradients):
        gradients[1] = gradients[1] if step > 1 else None
        gradients[2] = gradients[2] if step > 3 else None
    assert_equal(problem, backend, max_grad_norm=1.0 if measures else None, lr=LR)


def test_parameters_that_are_frozen_do_not_matter(rng, backend):
    """The lead is where the first one is."""
    problem = random_problem(rng, FEW, 3, none=0.0)
    for gradients in problem.gradients:
        gradients[0] = None
    assert_equal(problem, backend, [LEAD, FIRST, FIRST, FIRST], **EVERYTHING, amsgrad=True)


def test_groups_on_devices_of_their_own(rng, backend):
    """Each group with its schedules; the last one starts later."""
    problem = random_problem(rng, [(5,), (3, 7), (64,), (2,), (9,), (600,)], 5)
    groups = (
        {"lr": LR, "clip_value": S.linear(0.2, 0.1, 5)},
        {"weight_decay": S.linear(0.5, 0.0, 5), "agc": 0.05, "maximize": True},
        {"betas": (0.5, S.linear(0.9, 0.99, 5)), "start_step": 2, "clip_value": 0.05},
    )
    assert_equal(problem, backend, groups=groups, max_grad_norm=0.3)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_in_other_layouts(rng, backend, rule, layout):
    """Copies of them lie where they lie."""
    values = [torch.randn(4, 6, 3, 5, generator=rng.torch) for _ in range(2)]
    gradients = [torch.randn(4, 6, 3, 5, generator=rng.torch) for _ in range(2)]
    runs = []
    for name in (backend, "reference"):
        made = start_apart(values, name, [LEAD, FIRST], max_grad_norm=0.5, write_grads=True)
        for _ in range(2):
            advance(made, [LAYOUTS[layout](g) for g in gradients])
        runs.append(made)
    assert_same_run(*runs)


OUTSIDE = [
    {"grad_scale": torch.tensor([3.0]), "found_inf": torch.tensor(0.0)},
    {"grad_scale": torch.tensor(5.0), "found_inf": torch.tensor([1.0])},
    {"grad_scale": 7.0, "found_inf": 0},
    {"grad_scale": None, "found_inf": torch.tensor(1.0)},
]


@pytest.mark.parametrize("outside", OUTSIDE, ids=repr)
@pytest.mark.parametrize("options", [{}, {"max_grad_norm": 0.5, "clip_value": 0.1}], ids=repr)
def test_an_outside_grad_scaler_on_several_devices(rng, backend, rule, outside, options):
    problem = random_problem(rng, FEW, 2)
    runs = []
    for name in (backend, "reference"):
        made = start_apart(problem.values, name, **options)
        for gradients in problem.gradients:
            vars(made.opt).update(outside)
            advance(made, gradients)
        runs.append(made)
    assert_same_run(*runs)


# The contract


def test_a_checkpoint_goes_on_on_other_devices(rng, backend, rule):
    problem = random_problem(rng, FEW, 6)
    want = run(problem, **EVERYTHING, **rule.largest)
    made = start_apart(problem.values, backend, **EVERYTHING, **rule.largest)
    for gradients in problem.gradients[:3]:
        advance(made, gradients)
    other = start_apart(
        [p.detach() for p in made.params], backend, DEVICES[::-1], **EVERYTHING, **rule.largest
    )
    other.opt.load_state_dict(copy.deepcopy(made.opt.state_dict()))
    other.metrics = made.metrics
    for gradients in problem.gradients[3:]:
        advance(other, gradients)
    assert_same_run(other, want, () if rule.counts else ("counts", "steps"))


def test_state_that_is_written_in_place_is_seen(rng, backend):
    """The counter, the loss scale and a parameter's count, all of them on the lead."""
    problem = random_problem(rng, FEW, 4, none=0.0)

    def changing(made):
        for step, gradients in enumerate(problem.gradients):
            if step == 2:
                state = made.opt._engine.bookkeeping.state(made.opt.param_groups)
                state.words[0] = 7
                state.loss_scale.fill_(16.0)
                made.opt.state[made.params[1]]["step"].fill_(30.0)
            advance(made, gradients)
        return made

    got = changing(start_apart(problem.values, backend, **EVERYTHING, amsgrad=True))
    assert_same_run(got, changing(start(problem.values, **EVERYTHING, amsgrad=True)))


def test_options_and_groups_that_change_in_mid_run(rng, backend, rule):
    problem = random_problem(rng, SMALL, 6, none=0.1)

    def changing(name):
        made = start(problem.values[:5], name, lr=LR, max_grad_norm=1.0)
        late = parameters(problem.values[5:])
        put([*made.params, *late], DEVICES)
        for step, gradients in enumerate(problem.gradients):
            if step == 2:
                made.opt.add_param_group(*alternating(late, {"clip_value": 0.3}))
                made.params.extend(late)
            if step == 4:
                made.opt.param_groups[0].update(maximize=True, weight_decay=0.5, **rule.largest)
            advance(made, gradients[: len(made.params)])
        return made

    assert_same_run(changing(backend), changing("reference"))


def test_an_error_on_a_peer_changes_nothing(rng, backend):
    problem = random_problem(rng, FEW, 2, none=0.0)
    made = start_apart(problem.values, backend, nonfinite="raise")
    advance(made, problem.gradients[0])
    before = [p.detach().clone() for p in made.params]
    problem.gradients[1][1][2] = INF
    with pytest.raises(RuntimeError, match="step 1: a gradient is not finite"):
        advance(made, problem.gradients[1])
    assert all(map(torch.equal, made.params, before))
    made.opt.param_groups[0]["eps"] = INF
    with pytest.raises(RuntimeError, match=r"step 1: eps of param_groups\[0\] is inf"):
        advance(made, problem.gradients[0])
    assert all(map(torch.equal, made.params, before))


def test_push_reaches_every_device(rng, backend, rule):
    made = run_apart(random_problem(rng, FEW, 1), backend, clip_value=1.0)
    made.opt.param_groups[0]["lr"] = 0.375
    made.opt.push()
    together = made.opt._engine.table.run
    for share in (together._lead, *together._peers):
        assert 0.375 in share.step._numbers.memory


def test_a_copy_of_the_optimizer_goes_on(rng, backend, rule):
    problem = random_problem(rng, FEW, 4)
    made = start_apart(problem.values, backend, **EVERYTHING, **rule.largest)
    for gradients in problem.gradients[:2]:
        advance(made, gradients)
    twin = copy.deepcopy(made)
    put(twin.params, DEVICES)
    for gradients in problem.gradients[2:]:
        advance(twin, gradients)
    assert_same_run(twin, run(problem, **EVERYTHING, **rule.largest))

"""Going back to a snapshot: the same steps from there give the same bits."""

import copy
import io
import pickle
import warnings

import pytest
import torch
from lib.runs import assert_same_bits, assert_same_contents, assert_same_run

import lrfused
from lrfused import schedules as S

from .going_back import AFTER, BEFORE, LATE, begun, go_on, random_course, standing, until_snapshot

pytestmark = pytest.mark.filterwarnings("ignore:param_groups.* overrides its schedule")


def saved_and_loaded(snapshot):
    memory = io.BytesIO()
    torch.save(snapshot, memory)
    return torch.load(io.BytesIO(memory.getvalue()), weights_only=True)


def goes_on_alike(got, want):
    """From the snapshot on, both run to the same end, whatever metrics were before."""
    got.metrics, want.metrics = [], []
    assert_same_run(go_on(got), go_on(want))


def test_the_same_steps_give_the_same_bits(rng, rule, backend):
    """Over schedules, overrides, products of betas, skipped steps, a late first gradient, a group
    that starts late, an input, a Tensor lr: right after rewinding all is as it was, and then again.
    """
    problem = random_course(rng)
    made, want = (until_snapshot(begun(problem, backend)) for _ in range(2))
    snapshot = made.opt.snapshot()
    assert_same_run(made, want)  # nothing was changed by it
    go_on(made)
    assert made.metrics[-1]["skipped_steps"] == 2 and made.metrics[-1]["steps"] > BEFORE
    made.opt.rewind(snapshot)
    assert_same_contents(standing(made), standing(want))
    assert made.opt.metrics()["steps"] == want.opt.metrics()["steps"] == snapshot.step
    goes_on_alike(made, want)


def test_state_that_there_was_not_is_as_before_the_first_update(rng, rule):
    """In the memory that it has by now."""
    made = until_snapshot(begun(random_course(rng), "reference"))
    late = made.params[LATE]
    assert not made.opt.state.get(late)
    snapshot = made.opt.snapshot()
    go_on(made)
    state = made.opt.state[late]
    before = {key: (id(x), x.data_ptr()) for key, x in state.items()}
    assert any(bool(state[key].any()) for key in rule.keys if key in state)
    made.opt.rewind(snapshot)
    assert {key: (id(x), x.data_ptr()) for key, x in made.opt.state[late].items()} == before
    for key, tensor in state.items():
        assert_same_bits(tensor, torch.full_like(tensor, float(key.endswith("product"))), key)


def test_another_optimizer_of_the_form_goes_on_from_there(rng, rule, backend):
    """One without any step yet, so that its state is made; of another backend, from a file."""
    problem = random_course(rng)
    want = until_snapshot(begun(problem, "reference"))
    snapshot = want.opt.snapshot()
    other = begun(problem, backend)
    other.mirror = want.mirror
    other.opt.rewind(saved_and_loaded(snapshot))
    assert_same_contents(standing(other), standing(want))
    goes_on_alike(other, want)


@pytest.mark.parametrize("device", [None, "cpu", torch.device("cpu")])
def test_a_snapshot_shares_no_memory(rng, rule, device):
    """Neither with the optimizer that it was taken of, nor with one that was rewound to it."""
    problem = random_course(rng)
    made, want = (until_snapshot(begun(problem, "reference")) for _ in range(2))
    snapshot = made.opt.snapshot(device)
    other = begun(problem, "reference")
    other.mirror = made.mirror
    for course in (other, made):
        course.opt.rewind(snapshot)
        go_on(course)
    made.opt.rewind(snapshot)
    goes_on_alike(made, want)


def test_a_copy_of_the_optimizer_rewinds(rng, rule):
    """A deepcopy with its parameters, and one that was pickled."""
    made, want = (until_snapshot(begun(p, "reference")) for p in [random_course(rng)] * 2)
    snapshot = made.opt.snapshot()
    go_on(made)
    for duplicate in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        duplicate.opt.rewind(snapshot)
        goes_on_alike(duplicate, copy.deepcopy(want))


def test_from_before_the_first_step(rng, rule):
    problem = random_course(rng)
    made, want = begun(problem, "reference"), begun(problem, "reference")
    snapshot = made.opt.snapshot()
    assert not made.opt.state and snapshot.step == 0
    go_on(until_snapshot(made))
    made.opt.rewind(snapshot)
    assert made.opt.metrics()["steps"] == 0
    made.metrics = []
    assert_same_run(go_on(until_snapshot(made)), go_on(until_snapshot(want)))


def test_every_address_stays(rng, rule):
    made = until_snapshot(begun(random_course(rng), "reference"))
    snapshot = made.opt.snapshot()
    go_on(made)

    def addresses():
        state = made.opt._engine.bookkeeping.state(made.opt.param_groups)
        counts = state.tensors
        found = [state.words, state.loss_scale, counts.counts, counts.steps, counts.carried]
        found += [*made.params, made.lr, made.knob, made.opt.param_groups[1]["lr"]]
        found += [x for s in made.opt.state.values() for x in s.values()]
        return [(id(x), x.data_ptr()) for x in found]

    before, table = addresses(), made.opt._engine.table
    made.opt.rewind(snapshot)
    assert addresses() == before
    go_on(made)
    assert made.opt._engine.table is table


def test_rewinding_is_seen_by_autograd(rng):
    """Memory that a backward pass needs was written."""
    weight = torch.nn.Parameter(torch.ones(3))
    opt = lrfused.SGD([weight], lr=0.5)
    snapshot = opt.snapshot()
    loss = (weight * weight).sum()
    opt.rewind(snapshot)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


# What leads after a rewind: closed forms, SGD by gradients of 1


def sgd(lr):
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    return weight, lrfused.SGD([weight], lr=lr)


def moved(weight, opt):
    """By how much the next step moves the weight."""
    before, weight.grad = weight.item(), torch.ones_like(weight)
    opt.step()
    return before - weight.item()


FALLING = S.linear(1.0, 0.0, 8)


def test_a_schedule_of_now_goes_on_at_the_step_of_then():
    weight, opt = sgd(0.25)
    for _ in range(2):
        assert moved(weight, opt) == 0.25
    other, scheduled = sgd(FALLING)
    scheduled.rewind(opt.snapshot())
    assert other.item() == -0.5 and scheduled.param_groups[0]["lr"] == 0.75
    assert moved(other, scheduled) == 0.75


def test_a_number_of_now_stays_where_a_schedule_led():
    weight, opt = sgd(FALLING)
    assert moved(weight, opt) == 1.0
    for lr in (0.25, torch.tensor(0.25)):
        other, plain = sgd(lr)
        plain.rewind(opt.snapshot())
        assert float(plain.param_groups[0]["lr"]) == 0.25 and moved(other, plain) == 0.25


def test_an_override_of_now_ends_where_a_schedule_led():
    weight, opt = sgd(FALLING)
    assert moved(weight, opt) == 1.0
    snapshot = opt.snapshot()
    opt.param_groups[0]["lr"] = 0.25
    assert moved(weight, opt) == 0.25
    opt.rewind(snapshot)
    assert opt.param_groups[0]["lr"] == 0.875 and moved(weight, opt) == 0.875
    opt.rewind(snapshot)
    opt.param_groups[0]["lr"] = 0.25  # not yet taken in by a step
    opt.rewind(snapshot)
    assert moved(weight, opt) == 0.875


def test_an_override_of_then_leads_until_the_mirror_is_written_back():
    weight, opt = sgd(FALLING)
    opt.param_groups[0]["lr"] = 0.25
    assert moved(weight, opt) == 0.25
    snapshot, (other, scheduled) = opt.snapshot(), sgd(FALLING)
    for target, p in ((opt, weight), (scheduled, other)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # it was warned of when it was written
            target.rewind(snapshot)
            assert moved(p, target) == 0.25
        target.param_groups[0]["lr"] = 1.0  # which stood there when it was overridden
        assert moved(p, target) == 0.75


def test_an_override_of_then_leads_over_a_value_that_was_loaded_since():
    """As ZeroRedundancyOptimizer loads: into the groups, perhaps again before the next step."""
    weight, opt = sgd(FALLING)
    opt.param_groups[0]["lr"] = 0.25
    assert moved(weight, opt) == 0.25
    snapshot, (group,) = opt.snapshot(), copy.deepcopy(opt.state_dict())["param_groups"]
    opt.param_groups[0].update({k: x for k, x in group.items() if k != "params"})
    opt.sync_mirrors()
    assert opt.param_groups[0]["lr"] == FALLING(1)  # what was loaded is no override
    opt.rewind(snapshot)
    assert moved(weight, opt) == 0.25


def test_a_tensor_keeps_its_place_and_gets_its_value():
    lr = torch.tensor(0.5, dtype=torch.float64)
    weight, opt = sgd(lr)
    snapshot = opt.snapshot()
    lr.fill_(0.125)
    opt.rewind(snapshot)
    assert opt.param_groups[0]["lr"] is lr and moved(weight, opt) == 0.5
    opt.param_groups[0]["lr"] = 0.125
    opt.rewind(snapshot)
    assert opt.param_groups[0]["lr"] == 0.5 and moved(weight, opt) == 0.5


def test_counters_are_those_of_then():
    """A step set by hand, a scale that grew, skips in a row."""
    weight = torch.nn.Parameter(torch.zeros(3))
    policy = lrfused.LossScale(init=8.0, growth_interval=2, hysteresis=2)
    opt = lrfused.AdamW([weight], lr=FALLING, loss_scale=policy)

    def step(value):
        opt.scale(weight.sum())
        weight.grad = torch.full_like(weight, value)
        opt.step()

    for value in (1.0, 1.0, torch.inf):
        step(value)
    opt.set_step(1)  # less than the count
    snapshot, then = opt.snapshot(), opt.metrics()
    for value in (torch.inf, 1.0, 1.0, 1.0):
        step(value)
    assert opt.metrics()["loss_scale"] == 16.0 and opt.metrics()["skipped_steps"] == 2
    opt.rewind(snapshot)
    now = opt.metrics()
    for name in ("steps", "skipped_steps", "consecutive_skips", "clipped_steps", "loss_scale"):
        assert now[name] == then[name]
    assert now["steps"] == 1 and now["loss_scale"] == 16.0 and opt.state[weight]["step"] == 2.0
    step(torch.inf)  # the second in a row, of which hysteresis lets one pass
    assert opt.metrics()["loss_scale"] == 8.0


def test_a_scale_starts_anew_where_there_was_none():
    weight, plain = sgd(0.25)
    assert moved(weight, plain) == 0.25
    opt = lrfused.SGD([weight], lr=0.25, loss_scale=lrfused.LossScale(init=8.0))
    opt.rewind(plain.snapshot())
    assert opt.metrics()["loss_scale"] == 8.0 and opt.metrics()["steps"] == 1


def test_counts_above_float32_are_exact():
    weight = torch.nn.Parameter(torch.zeros(2))
    opt = lrfused.AdamW([weight])
    weight.grad = torch.ones(2)
    opt.step()
    saved = opt.state_dict()
    saved["state"][0]["step"] = torch.tensor(2.0**24 + 3, dtype=torch.float64)
    opt.load_state_dict(saved)
    snapshot = opt.snapshot()
    opt.step()
    opt.rewind(snapshot)
    assert opt.state_dict()["state"][0]["step"] == 2.0**24 + 3


def test_a_rewind_between_runs_of_any_length(rng, rule):
    """Several snapshots, gone back to in any order."""
    problem = random_course(rng)
    made, want = begun(problem, "reference"), begun(problem, "reference")
    snapshots = [made.opt.snapshot()]
    until_snapshot(made)
    snapshots.append(made.opt.snapshot())
    go_on(made)
    for chosen in rng.numpy.integers(2, size=4).tolist():
        made.opt.rewind(snapshots[chosen])
        (until_snapshot, go_on)[chosen](made)
    made.opt.rewind(snapshots[1])
    goes_on_alike(made, until_snapshot(want))
    assert len(made.metrics) == AFTER

"""Going back to a snapshot: the same steps from there give the same bits."""

import copy
import io
import pickle

import pytest
import torch
from lib.runs import assert_same_bits, assert_same_contents, assert_same_run

import lrfused

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

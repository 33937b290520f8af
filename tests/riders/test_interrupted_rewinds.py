"""A keyboard interrupt in a rewind: all is as before it, or all as at the snapshot."""

import pytest
import torch
from lib.interrupting import interrupt_at, watched
from lib.runs import bits

from .going_back import begun, go_on, random_course, until_snapshot, whole

pytestmark = pytest.mark.filterwarnings("ignore:param_groups.* overrides its schedule")


def are_same(some, others):
    """The same tensors with the same bits."""
    return some.keys() == others.keys() and all(
        tensor.shape == others[name].shape and torch.equal(bits(tensor), bits(others[name]))
        for name, tensor in some.items()
    )


class Interrupted:
    """A run that has gone on from a snapshot, and is interrupted on its way back."""

    def __init__(self, problem, backend):
        self.course = until_snapshot(begun(problem, backend))
        self.snapshot = self.course.opt.snapshot()
        go_on(self.course)
        self.course.opt.rewind(self.snapshot)  # from now on every parameter has its state
        self.then = whole(self.course)
        self.now = whole(go_on(self.course))
        assert not are_same(self.then, self.now)

    def rewind(self):
        self.course.opt.rewind(self.snapshot)

    def check(self, interrupt):
        """One more rewind, which the interrupt stops; then it is where it was before."""
        with pytest.raises(KeyboardInterrupt):
            watched(self.rewind, interrupt)
        found = whole(self.course)
        if are_same(found, self.then):
            found = whole(go_on(self.course))
        assert are_same(found, self.now)


def nth(number):
    """For `watched`: an interrupt at the event of this number."""
    left = iter(range(number))

    def interrupt(_):
        if next(left, None) is None:
            raise KeyboardInterrupt

    return interrupt


@pytest.fixture
def run(rng, rule):
    return Interrupted(random_course(rng), "reference")


def test_an_interrupt_at_random_tears_no_rewind(rng, run):
    events = []
    watched(run.rewind, events.append)
    go_on(run.course)
    assert len(events) > 300
    for number in rng.numpy.integers(len(events), size=20).tolist():
        run.check(nth(number))


@pytest.mark.slow
def test_an_interrupt_anywhere_tears_no_rewind(run):
    events = {}
    watched(run.rewind, events.setdefault)
    go_on(run.course)
    for place in events:
        run.check(interrupt_at(place))

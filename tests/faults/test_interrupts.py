"""Whatever goes wrong in the middle of a run: the step was done whole or not at all.

Each test interrupts a run at one step, repeats that step if the counter says that it was not
done, and compares the end with a run that nothing disturbed.
"""

import signal
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lib.interrupting import interrupt_at, watched
from lib.optimizers import Kind

from lrfused.backends.cpu.step import CpuStep
from lrfused.backends.work import Outcome

from .helpers import Training, accepting, assert_same_state, needs_cpp

STEPS, WHEN = 5, 2
BACKENDS = ["reference", pytest.param("cpu", marks=needs_cpp)]


def finish(training: Training, when: int = WHEN) -> dict[str, Any]:
    """Repeat the step of the interrupt unless it was done, then go on to the end."""
    done = training.opt.metrics()["steps"]
    assert done in (when, when + 1)
    training.run(done, STEPS)
    return training.now()


def undisturbed(seed: int, kind: Kind, backend: str, **options: Any) -> dict[str, Any]:
    """The run that nothing happened to."""
    training = Training(seed, kind, backend, **options)
    training.run(0, STEPS)
    return training.now()


@pytest.fixture
def seed(rng) -> int:
    """One seed for all runs of a test."""
    return int(rng.numpy.integers(10**6, 10**9))


# Somebody's code raises


def raising(error: type[BaseException]) -> Callable[..., None]:
    """A hook or closure that raises."""

    def function(*_: object) -> None:
        raise error("on purpose")

    return function


def in_pre_hook(training: Training, error: type[BaseException]) -> None:
    training.backward(WHEN)
    hook = training.opt.register_step_pre_hook(raising(error))
    try:
        training.opt.step()
    finally:
        hook.remove()


def in_post_hook(training: Training, error: type[BaseException]) -> None:
    training.backward(WHEN)
    hook = training.opt.register_step_post_hook(raising(error))
    try:
        training.opt.step()
    finally:
        hook.remove()


def in_closure(training: Training, error: type[BaseException]) -> None:
    def closure() -> None:
        training.backward(WHEN)
        raising(error)()

    training.opt.step(closure)


def in_gradient_hook(training: Training, error: type[BaseException]) -> None:
    hook = training.params[1].register_post_accumulate_grad_hook(raising(error))
    try:
        training.opt.step(lambda: training.backward(WHEN))
    finally:
        hook.remove()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("where", [in_pre_hook, in_post_hook, in_closure, in_gradient_hook])
def test_an_exception_in_somebodys_code_tears_no_step(seed, kind, backend, error, where):
    """In a hook, in a closure, in the backward pass: the step was done before it, or not."""
    training = Training(seed, kind, backend)
    training.run(0, WHEN)
    with pytest.raises(error, match="on purpose"):
        where(training, error)
    assert training.opt.metrics()["steps"] == WHEN + (where is in_post_hook)
    assert_same_state(finish(training), undisturbed(seed, kind, backend))


# A signal


@needs_cpp
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers that send signals")
@pytest.mark.parametrize("delay", [0.0002, 0.001, 0.004])
def test_a_signal_while_the_kernels_run_tears_no_step(seed, kind, monkeypatch, delay):
    """Ctrl-C in a long step: Python acts on it when the kernels are through."""
    training = Training(seed, kind, "cpu", size=400_000)
    training.run(0, WHEN)
    training.backward(WHEN)
    kernels = CpuStep.__call__

    def noticed(step: CpuStep, work: Any) -> Outcome:
        signal.setitimer(signal.ITIMER_REAL, delay)
        return kernels(step, work)

    monkeypatch.setattr(CpuStep, "__call__", noticed)
    before = signal.signal(signal.SIGALRM, raising(KeyboardInterrupt))
    try:
        with pytest.raises(KeyboardInterrupt):
            training.opt.step()
            signal.pause()  # the step was faster
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    monkeypatch.undo()
    assert_same_state(finish(training), undisturbed(seed, kind, "cpu", size=400_000))


# An interrupt anywhere


def nothing(training: Training) -> None:
    """An ordinary step."""


def new_option(training: Training) -> None:
    group = training.opt.param_groups[0]
    group["amsgrad" if "amsgrad" in group else "maximize"] = True


def tensor_lr(training: Training) -> None:
    training.opt.param_groups[0]["lr"] = torch.tensor(0.05)


def host_lr(training: Training) -> None:
    training.opt.param_groups[1]["lr"] = 0.02


def new_group(training: Training) -> None:
    training.params.append(accepting(training.random(77, (7,))))
    training.opt.add_param_group({"params": training.params[-1:], "lr": 0.3})


def moved_parameter(training: Training) -> None:
    training.params[0].data = training.params[0].data.clone()


def new_mask(training: Training) -> None:
    training.opt.set_masks({training.params[0]: torch.rand(3, 4, generator=fixed()) < 0.5})


def fixed() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def first_step(training: Training) -> None:
    """No step yet: this one makes all state."""


CHANGES = [
    nothing,
    new_option,
    tensor_lr,
    host_lr,
    new_group,
    moved_parameter,
    new_mask,
    first_step,
]


@needs_cpp
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:param_groups.* overrides its schedule")
@pytest.mark.parametrize("change", CHANGES)
def test_an_interrupt_anywhere_tears_no_step(seed, kind, change):
    """A KeyboardInterrupt at each place of the package where a step can meet one, a run for each.

    The step has to build a new table where the caller changed something before it.
    """
    when = 0 if change is first_step else WHEN

    def prepared() -> Training:
        training = Training(seed, kind, "cpu")
        training.run(0, when)
        change(training)
        training.backward(when)
        return training

    prepared().opt.step()  # what is compiled once for a kind of group, is after this
    training, events, torn = prepared(), {}, []
    watched(training.opt.step, events.setdefault)
    want = finish(training, when)
    for chosen in events:
        training = prepared()
        with pytest.raises(KeyboardInterrupt):
            watched(training.opt.step, interrupt_at(chosen))
        try:
            assert_same_state(finish(training, when), want)
        except (Exception, pytest.fail.Exception) as error:
            torn.append((*chosen, str(error)[:80]))
    assert len(events) > 50
    assert not torn, "\n".join(map(str, torn))

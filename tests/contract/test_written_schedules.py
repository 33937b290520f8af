"""A Schedule that is written into a parameter group: as if the optimizer had been built with it."""

import copy
import io
import warnings

import pytest
import torch
from lib.contract import (
    assert_near,
    assert_same_run,
    assert_unchanged,
    give_gradients,
    make_parameters,
    parameters_of,
    run,
    snapshot,
    twin,
    warmup,
)
from lib.optimizers import KINDS
from torch.optim import lr_scheduler as L

import lrfused
from lrfused import schedules

from .edits import saved_groups

FALLING = schedules.linear(0.9, 0.1, 20)
AT = 3


def written_of(kind):
    """What is written to groups of this kind of optimizer, by name."""
    found = {key: {key: FALLING} for key in kind.hyperparameters if key != "betas"}
    others = {key: FALLING for key in found}
    if "betas" in kind.hyperparameters:
        found["beta1"] = {"betas": (FALLING, 0.99)}
        found["beta2"] = {"betas": [0.8, FALLING]}
        found["both betas"] = {"betas": (FALLING, FALLING)}
        others["betas"] = (0.8, FALLING)
    return {**found, "all": others}


every_key = pytest.mark.parametrize(
    ("kind", "written"),
    [
        pytest.param(kind, written, id=f"{kind.name}-{name}")
        for kind in KINDS
        for name, written in written_of(kind).items()
    ],
)


def plain_of(kind):
    """What the groups have before: betas that leave room, all others the default."""
    return {"betas": (0.8, 0.99)} if "betas" in kind.hyperparameters else {}


def until_then(value, number):
    """A number before step AT, the schedule from there on: for an optimizer that is built so."""
    if isinstance(value, (tuple, list)):
        return tuple(until_then(*both) for both in zip(value, number, strict=True))
    if not isinstance(value, schedules.Schedule):
        return number
    return schedules.select(schedules.less(schedules.step, AT), number, value)


def built(kind, params, written, **options):
    """The optimizer that has it from the beginning, and meets it at step AT only."""
    defaults = kind.ours(twin(params), **plain_of(kind)).defaults
    own = {key: until_then(value, defaults[key]) for key, value in written.items()}
    return kind.ours(params, **{**plain_of(kind), **own}, **options)


@every_key
def test_written_in_mid_run_it_leads_from_the_next_step_on(rng, kind, backend, written):
    """lr, weight_decay, eps, one of betas: bits, mirrors and metrics of an optimizer that was built
    to meet this schedule from that step on. No warning."""
    params = make_parameters(rng)
    opt = kind.ours(params, **plain_of(kind), backend=backend)
    wanted = built(kind, twin(params), written, backend=backend)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(rng, AT, opt, wanted)
        opt.param_groups[0].update(written)
        run(rng, 5, opt, wanted)
    assert_same_run(opt, wanted)
    assert opt.metrics() == wanted.metrics()
    for key in kind.hyperparameters:
        assert opt.param_groups[0][key] == wanted.param_groups[0][key]


@every_key
def test_written_before_the_first_step_it_is_an_argument(rng, kind, backend, written):
    """Bits, mirrors, metrics, repr, checkpoint of an optimizer that was built with it, and it goes
    on from a checkpoint in the same way."""
    params = make_parameters(rng)
    opt = kind.ours(params, lr=0.01, **plain_of(kind), backend=backend)
    wanted = kind.ours(twin(params), **{"lr": 0.01, **plain_of(kind), **written})
    opt.param_groups[0].update(written)
    run(rng, 4, opt, wanted)
    assert_same_run(opt, wanted)
    assert opt.metrics() == wanted.metrics() and repr(opt) == repr(wanted)
    assert saved_groups(opt) == saved_groups(wanted)
    resumed = kind.ours(twin(params), lr=0.01, **plain_of(kind), backend=backend)
    resumed.param_groups[0].update(written)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the checkpoint's schedules are its own
        resumed.load_state_dict(copy.deepcopy(wanted.state_dict()))
    run(rng, 3, opt, wanted, resumed)
    for other in (opt, resumed):
        assert_same_run(other, wanted)
        assert saved_groups(other) == saved_groups(wanted)


@every_key
def test_it_is_saved_from_when_it_was_written(rng, kind, written):
    """A checkpoint after it, or right after it, loads with load_schedules=True into an optimizer of
    numbers, which goes on bit-equal."""
    for steps in (0, 2):
        params = make_parameters(rng)
        opt = kind.ours(params, **plain_of(kind))
        run(rng, AT, opt)
        opt.param_groups[0].update(written)
        run(rng, steps, opt)
        other = kind.ours(twin(params), **plain_of(kind))
        other.load_state_dict(copy.deepcopy(opt.state_dict()), load_schedules=True)
        run(rng, 3, opt, other)
        assert_same_run(other, opt)
        assert saved_groups(other) == saved_groups(opt)


READERS = {
    "metrics": lambda opt: opt.metrics(),
    "state_dict": lambda opt: opt.state_dict(),
    "sync_mirrors": lambda opt: opt.sync_mirrors(),
    "repr": repr,
    "report": lambda opt: lrfused.ReportLR(opt).get_last_lr(),
    "load": lambda opt: opt.load_state_dict(opt.state_dict()),
    "load alone": lambda opt: opt.load_state_dict(opt.kept),
    "deepcopy": lambda opt: copy.deepcopy(opt).metrics(),
    "add a group": lambda opt: opt.add_param_group({"params": []}),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("at", [0, AT])
def test_reading_right_after_it_was_written(rng, kind, read, at):
    """metrics(), state_dict(), a report, a load, before the next step: the schedule leads, and its
    value at the optimizer's step is shown."""
    opt = kind.ours(make_parameters(rng), lr=0.01)
    run(rng, at, opt)
    opt.kept = copy.deepcopy(opt.state_dict())
    opt.param_groups[0]["lr"] = FALLING
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="load_state_dict: the checkpoint was written")
        shown = read(opt)
    if read is READERS["report"]:
        assert shown == [FALLING(at)]
    run(rng, 2, opt)
    assert opt.metrics()["lr"][0] == FALLING(at + 1)
    assert opt.param_groups[0]["lr"] == FALLING(at + 2)


def test_it_replaces_a_schedule_a_tensor_and_a_number(rng, kind, backend):
    """Whatever led before, an override of a schedule included."""
    lrs = (warmup(), torch.tensor(0.01), 0.01)
    params = make_parameters(rng)
    for lr, overridden in ((lr, overridden) for lr in lrs for overridden in (False, True)):
        opt = kind.ours(twin(params), lr=lr, backend=backend)
        run(rng, 1, opt)
        if overridden:
            opt.param_groups[0]["lr"] = 0.5
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                run(rng, 1, opt)
        opt.param_groups[0]["lr"] = FALLING
        run(rng, 2, opt)
        step = 4 if overridden else 3
        assert opt.metrics()["lr"] == [FALLING(step - 1)]
        assert opt.param_groups[0]["lr"] == FALLING(step)


def test_one_schedule_in_one_of_two_groups(rng, kind, backend):
    """The other group is left alone; a number over the schedule is warned of, as over any other."""
    first, second = make_parameters(rng), make_parameters(rng)
    opt = kind.ours([{"params": first}, {"params": second, "lr": warmup()}], backend=backend)
    run(rng, 2, opt)
    opt.param_groups[0]["lr"] = FALLING
    run(rng, 1, opt)
    assert opt.metrics()["lr"] == [FALLING(2), warmup()(2)]
    opt.param_groups[0]["lr"] = 0.125
    with pytest.warns(UserWarning, match=r"param_groups\[0\]: lr was set to 0.125 and overrides"):
        run(rng, 1, opt)
    assert opt.metrics()["lr"] == [0.125, warmup()(3)]


def test_a_bad_value_beside_it_changes_nothing(rng, kind):
    """A Schedule in one place and no number in another: the step is refused; later it leads."""
    opt = kind.ours(make_parameters(rng), loss_scale=2.0)
    run(rng, 2, opt)
    before = snapshot(opt)
    opt.param_groups[0].update(lr=FALLING, weight_decay="small")
    give_gradients(rng, opt)
    with pytest.raises(TypeError, match=r"param_groups\[0\]: weight_decay must be a number"):
        opt.step()
    opt.param_groups[0].update({key: opt.defaults[key] for key in ("lr", "weight_decay")})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the number is over the schedule
        assert_unchanged(opt, {**before, "groups": snapshot(opt)["groups"]})


def test_a_schedule_is_a_function_for_lambda_lr(rng, kind, backend):
    """LambdaLR(opt, schedule) over a number: lr * schedule(step), as with a function; its state is
    plain data that loads under weights_only."""
    schedule = schedules.linear(0.0, 1.0, 4)
    params = make_parameters(rng)
    ours = kind.ours(params, lr=0.1, backend=backend)
    theirs = kind.theirs(twin(params), lr=0.1)
    first, second = L.LambdaLR(ours, schedule), L.LambdaLR(theirs, lambda step: schedule(step))
    for step in range(3):
        assert ours.param_groups[0]["lr"] == theirs.param_groups[0]["lr"] == 0.1 * schedule(step)
        run(rng, 1, ours, theirs, after=lambda _: [one.step() for one in (first, second)])
    assert_near(ours, theirs)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    saved = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    again = L.LambdaLR(kind.ours(twin(parameters_of(ours)), lr=0.1), schedule)
    again.load_state_dict(saved)
    again.step()
    assert again.last_epoch == 4 and again.get_last_lr() == [0.1 * schedule(4)]

"""ReportLR: what frameworks take for an LR scheduler, and that it changes nothing."""

import copy
import io
import pickle

import pytest
import torch
from lib.contract import (
    assert_same_run,
    give_gradients,
    make_parameters,
    parameters_of,
    run,
    twin,
    warmup,
)
from torch.optim import lr_scheduler as L
from torch.optim import swa_utils

import lrfused
from lrfused import schedules


class Wrapper(torch.optim.Optimizer):
    """As accelerate wraps an optimizer: its own constructor only, and everything passed on."""

    def __init__(self, optimizer):
        self.optimizer = optimizer
        self.step_was_skipped = False

    @property
    def param_groups(self):
        return self.optimizer.param_groups

    def step(self, closure=None):
        self.optimizer.step(closure)


def accelerated_step(scheduler, optimizer, processes, is_last_micro_batch=True):
    """What accelerate calls after each micro-batch, on each of several processes."""
    if not is_last_micro_batch:
        scheduler._step_count += 1
    elif not optimizer.step_was_skipped:
        for _ in range(processes):
            if not hasattr(scheduler, "total_steps"):
                scheduler.step()


def saved(scheduler):
    """A scheduler's state through a file that holds data alone."""
    file = io.BytesIO()
    torch.save(scheduler.state_dict(), file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=True)


def groups_of(opt):
    """Everything that stands in the groups."""
    return [dict(group) for group in opt.param_groups]


def made(rng, kind):
    """An optimizer with a warmup, and its report."""
    opt = kind.ours(make_parameters(rng), lr=warmup())
    return opt, lrfused.ReportLR(opt)


def test_it_is_a_torch_scheduler(rng, kind):
    """isinstance LRScheduler, with the attributes and numbers of one that was just made."""
    opt, report = made(rng, kind)
    like = L.LambdaLR(kind.theirs(make_parameters(rng)), lambda _: 1.0)
    assert isinstance(report, L.LRScheduler) and not hasattr(report, "total_steps")
    assert report.optimizer is opt
    assert (report.last_epoch, report._step_count) == (like.last_epoch, like._step_count)
    assert report.base_lrs == report._last_lr == report.get_last_lr() == [warmup()(0)]
    assert {"last_epoch", "_step_count", "_last_lr", "base_lrs"} <= like.state_dict().keys()


def test_it_reports_the_schedule(rng, kind):
    """After n steps get_last_lr() and get_lr() are [schedule(n)], as floats, without a warning."""
    params = make_parameters(rng)
    groups = [{"params": params[:2], "lr": warmup(0.5)}, {"params": params[2:]}]
    opt = kind.ours(groups, lr=0.25)
    report = lrfused.ReportLR(opt)
    for step in range(12):
        expected = [warmup(0.5)(step), 0.25]
        assert report.get_last_lr() == report.get_lr() == report._last_lr == expected
        assert all(type(lr) is float for lr in report.get_last_lr())
        give_gradients(rng, opt)
        opt.step()
        report.step()
    assert report.last_epoch == 12


def test_training_with_it_is_training_without_it(rng, kind):
    """Bit-equal, and neither the groups nor ``optimizer.step`` are touched."""
    opt, _ = made(rng, kind)
    alone = kind.ours(twin(parameters_of(opt)), lr=warmup())
    before = groups_of(opt)
    report = lrfused.ReportLR(opt)
    report.step()
    report._initial_step()
    report._update_lr(3)
    assert groups_of(opt) == before and "initial_lr" not in opt.param_groups[0]
    assert "step" not in vars(opt)
    run(rng, 12, opt, alone, after=lambda _: report.step())
    assert_same_run(opt, alone)
    assert opt.param_groups[0].keys() == alone.param_groups[0].keys()


def test_it_may_be_stepped_before_the_optimizer(rng, kind):
    """Not even torch's warning of that order: step() only counts."""
    opt, report = made(rng, kind)
    report.step()
    report.step()
    report.step(7)
    assert (report.last_epoch, report._step_count) == (7, 4)
    run(rng, 1, opt)
    assert report.get_last_lr() == [warmup()(1)]


def test_the_trainers_loop_keeps_the_schedule(rng, kind):
    """transformers' Trainer: a LambdaLR of its own holds schedule(0), a ReportLR the schedule."""
    lr = schedules.linear(0.125, 1.0, 7)

    def train(scheduler_of):
        opt = kind.ours(make_parameters(rng), lr=lr)
        scheduler, wrapped, logged = scheduler_of(opt), Wrapper(opt), []
        for _ in range(6):
            give_gradients(rng, opt)
            wrapped.step()
            if not wrapped.step_was_skipped:
                scheduler.step()
            logged.append(scheduler.get_last_lr()[0])
        return opt, scheduler, logged

    with pytest.warns(UserWarning, match="overrides its schedule"):
        _, _, logged = train(lambda opt: L.LambdaLR(opt, lambda _: 1.0))
    assert logged == [0.125] * 6
    opt, report, logged = train(lrfused.ReportLR)
    assert logged == [lr(step) for step in range(1, 7)]

    other = kind.ours(twin(parameters_of(opt)), lr=lr)
    resumed = lrfused.ReportLR(other)
    other.load_state_dict(opt.state_dict())
    resumed.load_state_dict(saved(report))
    assert resumed.get_last_lr() == report.get_last_lr() and resumed.last_epoch == 6


def test_accelerates_calls_keep_the_schedule(rng, kind):
    """Several step() a step, _step_count and last_epoch written: the lr is that of the steps."""
    opt, _ = made(rng, kind)
    wrapped = Wrapper(opt)
    report = lrfused.ReportLR(wrapped)
    assert report.optimizer is opt  # by which accelerate finds the wrapper again
    for step in range(5):
        accelerated_step(report, wrapped, processes=4, is_last_micro_batch=False)
        give_gradients(rng, opt)
        wrapped.step()
        accelerated_step(report, wrapped, processes=4)
        assert report.get_last_lr() == [warmup()(step + 1)]
    assert (report.last_epoch, report._step_count) == (20, 26)
    report.last_epoch //= 2
    assert report.get_last_lr() == [warmup()(5)]


def test_a_tensor_lr_is_reported_as_a_float(rng, kind):
    """A Tensor lr stays as it is; what is reported is its value, not the tensor."""
    lr = torch.tensor(0.25)
    opt = kind.ours(make_parameters(rng), lr=lr)
    report = lrfused.ReportLR(opt)
    lr.fill_(0.5)
    run(rng, 2, opt, after=lambda _: report.step())
    assert report.get_last_lr() == [0.5] and type(report.get_last_lr()[0]) is float
    assert opt.param_groups[0]["lr"] is lr and report.base_lrs == [0.25]


def test_what_is_written_to_the_groups_is_reported(rng, kind):
    """A number over a schedule, and a group that is added: what stands there is what is shown."""
    opt, report = made(rng, kind)
    opt.param_groups[0]["lr"] = 0.125
    opt.add_param_group({"params": make_parameters(rng, shapes=((3,),)), "lr": 0.5})
    with pytest.warns(UserWarning, match="overrides its schedule"):
        run(rng, 2, opt, after=lambda _: report.step())
    assert report.get_last_lr() == [0.125, 0.5]


def test_averaging_takes_over_from_it(rng, kind):
    """torch.optim.swa_utils: SWALR leads from where it is made, and the report follows it."""
    opt, report = made(rng, kind)
    run(rng, 5, opt, after=lambda _: report.step())
    swa = swa_utils.SWALR(opt, 0.5, anneal_epochs=2)
    with pytest.warns(UserWarning, match="overrides its schedule"):
        run(rng, 4, opt, after=lambda _: swa.step())
    assert report.get_last_lr() == swa.get_last_lr() == [0.5]


OTHERS = {
    "LambdaLR": lambda o: L.LambdaLR(o, lambda step: 1 / (step + 1)),
    "OneCycleLR": lambda o: L.OneCycleLR(o, 0.05, 30),
    "CyclicLR": lambda o: L.CyclicLR(o, 0.001, 0.02, 5, cycle_momentum=False),
    "CosineAnnealingWarmRestarts": lambda o: L.CosineAnnealingWarmRestarts(o, 5, 2),
    "SequentialLR": lambda o: L.SequentialLR(
        o, [L.LinearLR(o, 0.1, 1.0, 2), L.CosineAnnealingLR(o, 20)], [2]
    ),
    "ChainedScheduler": lambda o: L.ChainedScheduler([L.ConstantLR(o), L.ExponentialLR(o, 0.9)]),
    "ReduceLROnPlateau": L.ReduceLROnPlateau,
    "ReportLR": lrfused.ReportLR,
}


@pytest.mark.parametrize("name", OTHERS)
def test_it_loads_what_any_scheduler_wrote(rng, kind, name):
    """The checkpoint of another scheduler: the counts of calls are taken over, nothing else."""
    writer = kind.ours(make_parameters(rng), lr=0.01)
    other = OTHERS[name](writer)
    needs_loss = name == "ReduceLROnPlateau"
    run(rng, 4, writer, after=lambda _: other.step(1.0) if needs_loss else other.step())
    opt, report = made(rng, kind)
    before = groups_of(opt)
    attributes = vars(report).keys()
    report.load_state_dict(other.state_dict())
    assert groups_of(opt) == before and vars(report).keys() == attributes
    assert report.last_epoch == (0 if name == "ChainedScheduler" else 4)
    assert report.optimizer is opt and report.base_lrs == report.get_last_lr() == [warmup()(0)]


def test_its_state_is_plain_data(rng, kind):
    """state_dict() has torch's keys, not the optimizer, and loads under weights_only."""
    opt, report = made(rng, kind)
    run(rng, 3, opt, after=lambda _: report.step())
    lr = [warmup()(3)]
    assert saved(report) == {"last_epoch": 3, "_step_count": 4, "base_lrs": [0.0], "_last_lr": lr}
    # As torch's schedulers do, another one takes over every key.
    like = L.LambdaLR(kind.theirs(make_parameters(rng)), lambda _: 1.0)
    like.load_state_dict({**like.state_dict(), **saved(report)})
    assert (like.last_epoch, like.get_last_lr()) == (3, lr)


@pytest.mark.parametrize("broken", [3, {"last_epoch": 1.5}, {"_step_count": None}])
def test_a_broken_state_is_refused(rng, kind, broken):
    """No dictionary, or a count that is none: an error that says so, and nothing is changed."""
    _, report = made(rng, kind)
    with pytest.raises(TypeError, match="state_dict: "):
        report.load_state_dict(broken)
    assert (report.last_epoch, report._step_count) == (0, 1)


def test_copies_report_their_own_optimizer(rng, kind):
    """deepcopy and pickle, with the optimizer or alone: the copy goes on by itself."""
    opt, report = made(rng, kind)
    run(rng, 3, opt, after=lambda _: report.step())
    pair, (again, copied) = (opt, report), copy.deepcopy((opt, report))
    assert copied.optimizer is again
    for other in (copied, copy.deepcopy(report), pickle.loads(pickle.dumps(pair))[1]):
        assert other.optimizer is not opt and repr(other) == repr(report)
        run(rng, 2, other.optimizer, after=lambda _, other=other: other.step())
        assert other.get_last_lr() == [warmup()(5)] and other.last_epoch == 5
    assert report.get_last_lr() == [warmup()(3)] and report.last_epoch == 3


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (lambda p: torch.optim.AdamW(p), "torch.optim.adamw.AdamW"),
        (lambda p: Wrapper(torch.optim.SGD(p)), r"torch.optim.sgd.SGD inside .*Wrapper"),
        (lambda p: lrfused.ReportLR(lrfused.AdamW(p)), "lrfused.optim.report.ReportLR"),
        (lambda p: p, "builtins.list"),
    ],
)
def test_other_optimizers_are_refused(rng, other, named):
    """An optimizer that is none of lrfused: a TypeError that names the argument and the type."""
    with pytest.raises(TypeError, match=f"optimizer: must be one of lrfused's.* got {named}"):
        lrfused.ReportLR(other(make_parameters(rng)))

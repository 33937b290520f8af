"""torch.distributed.checkpoint: its allocation of state, and round trips."""

import copy
import warnings

import pytest
import torch
from lib.contract import (
    assert_near,
    assert_same_run,
    make_parameters,
    parameters_of,
    run,
    twin,
    warmup,
)
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from lrfused import schedules


def make_model(rng):
    """A small model of random weights."""
    torch.manual_seed(int(rng.numpy.integers(2**31)))
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))


def own(kind, model, **options):
    return kind.ours(model.parameters(), lr=warmup(), max_grad_norm=1.0, **options)


def allocate(opt):
    """What torch.distributed.checkpoint does to allocate an optimizer's state."""
    for p in parameters_of(opt):
        p.grad = torch.zeros_like(p)
    lrs = [group["lr"] for group in opt.param_groups]
    for group in opt.param_groups:
        group["lr"] = torch.tensor(0.0) if isinstance(group["lr"], torch.Tensor) else 0.0
    opt.step(closure=None)
    for group, lr in zip(opt.param_groups, lrs, strict=True):
        group["lr"] = lr
    opt.zero_grad(set_to_none=True)


LRS = {"schedule": warmup, "number": lambda: 0.1, "tensor": lambda: torch.tensor(0.1)}


@pytest.mark.parametrize("make_lr", LRS.values(), ids=LRS)
def test_the_allocation_trick_only_allocates(rng, kind, backend, make_lr):
    """Every lr written as 0, every gradient 0, no state: a step allocates the state; nothing moves,
    no counter advances, no warning, and the schedule still leads."""
    params = make_parameters(rng)
    plain = kind.ours(twin(params), lr=make_lr(), backend=backend, loss_scale="dynamic")
    opt = kind.ours(params, lr=make_lr(), backend=backend, loss_scale="dynamic")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        allocate(opt)
    assert all(torch.equal(p, q) for p, q in zip(params, parameters_of(plain), strict=True))
    assert opt.metrics()["steps"] == 0
    for p in params:
        state = opt.state.get(p, {})
        assert set(state) == kind.keys and not any(value.any() for value in state.values())
    run(rng, 4, opt, plain)
    assert_same_run(opt, plain)
    assert float(opt.param_groups[0]["lr"]) == float(plain.param_groups[0]["lr"])
    assert opt.metrics() == plain.metrics()


def test_a_warmup_from_zero_is_an_ordinary_step(rng, kind):
    """lr 0 with real gradients, and lr 0 with zero gradients and existing state: a step counts."""
    opt = kind.ours(make_parameters(rng), lr=schedules.linear(0.0, 1.0, 10))
    theirs = kind.theirs(twin(parameters_of(opt)), lr=0.0)
    run(rng, 1, opt, theirs)
    assert opt.metrics()["steps"] == 1
    assert_near(opt, theirs)
    number = kind.ours(make_parameters(rng), lr=0.0)
    run(rng, 1, number)
    for p in parameters_of(number):
        p.grad.zero_()
    number.step()
    assert number.metrics()["steps"] == 2


def test_zero_gradients_under_a_schedule_are_an_ordinary_step(rng, kind):
    """All gradients zero but lr not 0: the step counts, as in torch."""
    opt = kind.ours(make_parameters(rng), lr=schedules.linear(1.0, 0.0, 10))
    for p in parameters_of(opt):
        p.grad = torch.zeros_like(p)
    opt.step()
    assert opt.metrics()["steps"] == 1
    kind.assert_counts(opt, [1.0] * 4)


def test_one_lr_that_is_not_zero_is_an_ordinary_step(rng, kind):
    """Not every lr is 0, or one gradient is nan: no allocation, the step counts, as in torch."""
    opt = kind.ours(
        [{"params": make_parameters(rng), "lr": 0.0}, {"params": make_parameters(rng), "lr": 0.1}]
    )
    other = kind.ours(make_parameters(rng), lr=0.0)
    for p in parameters_of(opt) + parameters_of(other):
        p.grad = torch.zeros_like(p)
    parameters_of(other)[1].grad[4] = torch.nan
    for stepping in (opt, other):
        stepping.step()
        assert stepping.metrics()["steps"] == 1
        kind.assert_counts(stepping, [1.0] * len(parameters_of(stepping)))


def through_dcp(saved, like, folder):
    """Saved by torch.distributed.checkpoint and read into a state_dict of the same form."""
    dcp.save({"optimizer": saved}, checkpoint_id=folder, no_dist=True)
    into = {"optimizer": like}
    dcp.load(into, checkpoint_id=folder, no_dist=True)
    return into["optimizer"]


quiet_dcp = pytest.mark.filterwarnings("ignore::UserWarning:torch.distributed")


@quiet_dcp
@pytest.mark.parametrize("flatten", [False, True])
@pytest.mark.parametrize("on_disk", [False, True])
def test_own_distributed_state_loads_bit_equal(rng, kind, tmp_path, flatten, on_disk):
    """get_optimizer_state_dict, (dcp.save, dcp.load,) set_optimizer_state_dict into a fresh
    optimizer: it goes on bit-equal."""
    options = StateDictOptions(flatten_optimizer_state_dict=flatten)
    model = make_model(rng)
    opt = own(kind, model)
    run(rng, 5, opt)
    saved = copy.deepcopy(get_optimizer_state_dict(model, opt, options=options))
    other_model = copy.deepcopy(model)
    other = own(kind, other_model)
    if on_disk:
        like = get_optimizer_state_dict(other_model, other, options=options)
        saved = through_dcp(saved, like, tmp_path)
    set_optimizer_state_dict(other_model, other, saved, options=options)
    assert_same_run(other, opt)
    run(rng, 5, opt, other)
    assert_same_run(other, opt)
    assert other.metrics()["steps"] == 10
    assert other.param_groups[0]["lr"] == warmup()(10)


def load_over_own(model, opt, theirs, options):
    """What docs/differences.md says for a flattened state of torch's."""
    if options.flatten_optimizer_state_dict:
        theirs = {**get_optimizer_state_dict(model, opt, options=options), **theirs}
    set_optimizer_state_dict(model, opt, theirs, options=options)


@quiet_dcp
@pytest.mark.parametrize("flatten", [False, True])
def test_torchs_distributed_state_loads(rng, kind, flatten):
    """torch.optim.AdamW's distributed state loads: counter = largest step, the schedule leads.

    A flattened one has no value for the keys that our groups have, which torch demands: it is put
    over our own.
    """
    options = StateDictOptions(flatten_optimizer_state_dict=flatten)
    model = make_model(rng)
    theirs = kind.theirs(model.parameters(), lr=0.3)
    run(rng, 5, theirs)
    saved = copy.deepcopy(get_optimizer_state_dict(model, theirs, options=options))
    other_model = copy.deepcopy(model)
    ours = kind.ours(other_model.parameters(), lr=warmup())
    if not kind.counts:
        ours.set_step(5)  # which only the counts in AdamW's state say
    load_over_own(other_model, ours, saved, options)
    assert ours.metrics()["steps"] == 5 and ours.param_groups[0]["lr"] == warmup()(5)
    assert_near(ours, theirs)
    plain_model = copy.deepcopy(model)
    plain = kind.ours(plain_model.parameters())
    load_over_own(plain_model, plain, saved, options)
    assert plain.param_groups[0]["lr"] == 0.3
    run(rng, 5, plain, theirs)
    assert_near(plain, theirs)


@quiet_dcp
@pytest.mark.parametrize("flatten", [False, True])
def test_torch_loads_our_distributed_state(rng, kind, flatten):
    """Our distributed state loads into torch.optim.AdamW, which goes on as we do."""
    options = StateDictOptions(flatten_optimizer_state_dict=flatten)
    model = make_model(rng)
    ours = kind.ours(model.parameters(), lr=0.02)
    run(rng, 5, ours)
    saved = copy.deepcopy(get_optimizer_state_dict(model, ours, options=options))
    other_model = copy.deepcopy(model)
    theirs = kind.theirs(other_model.parameters())
    set_optimizer_state_dict(other_model, theirs, saved, options=options)
    run(rng, 5, ours, theirs)
    assert_near(ours, theirs)


@quiet_dcp
@pytest.mark.parametrize("flatten", [False, True])
def test_saving_before_the_first_step_changes_nothing(rng, kind, flatten):
    """A distributed state taken from a fresh optimizer: the run starts as if it had not been."""
    options = StateDictOptions(flatten_optimizer_state_dict=flatten)
    model = make_model(rng)
    other_model = copy.deepcopy(model)
    opt, plain = own(kind, model), own(kind, other_model)
    saved = get_optimizer_state_dict(model, opt, options=options)
    set_optimizer_state_dict(model, opt, saved, options=options)
    run(rng, 4, opt, plain)
    assert_same_run(opt, plain)


@quiet_dcp
def test_two_groups_keep_their_own_schedules(rng, kind):
    """Groups with schedules of their own, through the distributed state."""

    def build(model):
        first, second = model
        return kind.ours(
            [
                {"params": first.parameters(), "lr": warmup(0.1)},
                {"params": second.parameters(), "lr": warmup(0.3)},
            ]
        )

    model = make_model(rng)
    opt = build(model)
    run(rng, 3, opt)
    saved = copy.deepcopy(get_optimizer_state_dict(model, opt))
    other_model = copy.deepcopy(model)
    other = build(other_model)
    set_optimizer_state_dict(other_model, other, saved)
    run(rng, 3, opt, other)
    assert_same_run(other, opt)
    assert [g["lr"] for g in other.param_groups] == [warmup(0.1)(6), warmup(0.3)(6)]

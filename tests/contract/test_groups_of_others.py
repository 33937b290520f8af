"""Groups of one optimizer in another one: their schedules and options go along."""

import pytest
import torch
from lib.contract import (
    assert_same_bits,
    make_parameters,
    parameters_of,
    run,
    tensors_of,
    twin,
    warmup,
)

from lrfused import schedules

from .edits import copied, own_settings, saved_groups

OWN = [
    {"lr": warmup(), "lr_scale": 0.5, "initial_lr": 0.3},
    {"lr": torch.tensor(0.1), "agc": warmup(0.1), "agc_by": "tensor"},
    {"weight_decay": warmup(1e-3), "weight_decay_mode": "lr_ratio", "peak_lr": 0.2},
]


def settings_of(kind):
    """Of many groups."""
    return [*own_settings(True, kind), *OWN]


def made(rng, kind, steps=0, own=None, **options):
    """An optimizer of many groups, after some steps."""
    own = own or settings_of(kind)
    groups = [{"params": make_parameters(rng, shapes=[(5, 2)]), **one} for one in own]
    opt = kind.ours(groups, lr=0.02, **options)
    run(rng, steps, opt)
    return opt


def with_twins(groups):
    """Copies of groups, over parameters of their own of the same values."""
    return [{**group, "params": twin(group["params"])} for group in groups]


def assert_same_settings(rng, opt, other):
    """Two optimizers go on alike in every bit, and say the same of themselves."""
    assert saved_groups(opt) == saved_groups(other) and repr(opt) == repr(other)
    run(rng, 6, opt, other)
    assert_same_bits(tensors_of(opt), tensors_of(other))
    assert opt.metrics() == other.metrics() and saved_groups(opt) == saved_groups(other)


@pytest.mark.parametrize("steps", [0, 3])
def test_an_optimizer_of_anothers_groups_follows_their_schedules(rng, kind, backend, steps):
    """AdamW(other.param_groups), as frameworks rebuild an optimizer: schedules and options of every
    group, a layer's lr_scale once; counts and the step start at 0."""
    first = made(rng, kind, steps)
    pairs = zip(settings_of(kind), first.param_groups, strict=True)
    settings = [{**one, "params": group["params"]} for one, group in pairs]
    copy = kind.ours(with_twins(first.param_groups), backend=backend)
    wanted = kind.ours(with_twins(settings), lr=0.02)
    assert not copy.state and copy.metrics()["steps"] == 0
    assert_same_settings(rng, copy, wanted)


def add_copy(opt, group):
    opt.add_param_group(group)


def append_copy(opt, group):
    opt.param_groups.append(group)


@pytest.mark.parametrize("add", [add_copy, append_copy])
@pytest.mark.parametrize("steps", [0, 3])
def test_a_group_of_another_optimizer_may_be_added(rng, kind, backend, add, steps):
    """By add_param_group or by hand, though the group has the place and number of one that is here:
    its own settings, at this optimizer's step."""
    others = made(rng, kind, 2)
    here = [{"lr": warmup(), "agc": 0.2}]
    opt, wanted = made(rng, kind, own=here, backend=backend), made(rng, kind, own=here)
    for a, b in zip(parameters_of(opt), parameters_of(wanted), strict=True):
        a.data.copy_(b)
    run(rng, steps, opt, wanted)
    for own, group in zip(settings_of(kind), others.param_groups, strict=True):
        add(opt, with_twins([group])[0])
        wanted.add_param_group({"lr": 0.02, **own, "params": twin(group["params"])})
    run(rng, 1, opt, wanted)
    assert_same_settings(rng, opt, wanted)


def test_a_schedule_that_was_written_later_goes_along(rng, kind):
    """One written into the other's group in mid-run, by hand, whether a step took it in or not."""
    for key, value in {"lr": warmup(0.2), **kind.scheduled}.items():
        for steps in (0, 2):
            first = made(rng, kind, 2, own=[{}])
            first.param_groups[0][key] = value
            run(rng, steps, first)
            copy = kind.ours(with_twins(first.param_groups))
            wanted = kind.ours(
                [{"params": twin(parameters_of(copy)), "lr": 0.02, key: value}], lr=0.02
            )
            assert_same_settings(rng, copy, wanted)


def test_what_stands_in_the_copy_wins(rng, kind):
    """Another schedule, option or number for an option: not the other's; a key that is left out has
    this optimizer's default."""
    first = made(rng, kind, 2)
    first_groups = with_twins(first.param_groups[:4])
    later = warmup(0.5)
    others = {key: (later, later) if key == "betas" else later for key in kind.scheduled}
    groups = [
        {**first_groups[0], "lr": warmup(0.5)},
        {**first_groups[2], "clip_value": 0.125, **others},
        {key: value for key, value in first_groups[3].items() if key != "lr"},
    ]
    copy = kind.ours(groups, lr=0.25)
    own = own_settings(True, kind)
    changed = [
        {**own[0], "lr": warmup(0.5)},
        {**own[2], "clip_value": 0.125, **others},
        {key: value for key, value in own[3].items() if key != "lr"},
    ]
    wanted = [{**one, "params": twin(g["params"])} for one, g in zip(changed, groups, strict=True)]
    assert_same_settings(rng, copy, kind.ours(wanted, lr=0.25))


@pytest.mark.parametrize("name", ["lr", "weight_decay", "clip_value"])
def test_a_schedule_that_reads_a_tensor_has_to_be_given_again(rng, kind, name):
    """No copy brings the tensor along: the error says so, and to write the schedule into the copy
    works. Nothing was changed."""
    temperature = torch.tensor(0.5)
    schedule = warmup() * schedules.input(temperature, "temperature")
    first = made(rng, kind, 2, own=[{name: schedule}])
    group = with_twins(first.param_groups)[0]
    with pytest.raises(ValueError, match=f"{name}: its schedule reads temperature.*write the sch"):
        kind.ours([group])
    opt = made(rng, kind, own=[{}])
    for ask in (lambda: opt.add_param_group(group), lambda: by_hand(opt, group)):
        with pytest.raises(ValueError, match=f"{name}: its schedule reads temperature"):
            ask()
        assert len(opt.param_groups) == 1
    other = kind.ours([{**group, name: schedule}])
    wanted = kind.ours([{"params": twin(group["params"]), name: schedule}], lr=0.02)
    assert_same_settings(rng, other, wanted)


def by_hand(opt, group):
    opt.param_groups.append(group)
    try:
        opt.metrics()
    finally:
        opt.param_groups.pop()


def test_a_group_that_was_taken_out_may_be_added_again(rng, kind):
    """add_param_group with a group of this optimizer: with the very tensors that it reads."""
    decay = torch.tensor(0.5)
    opt, wanted = (made(rng, kind, own=[{}, {"weight_decay": decay, "lr": warmup()}]) for _ in "ab")
    for a, b in zip(parameters_of(opt), parameters_of(wanted), strict=True):
        a.data.copy_(b)
    run(rng, 3, opt, wanted)
    opt.add_param_group(copied(opt.param_groups.pop()))
    decay.fill_(0.25)
    assert_same_settings(rng, opt, wanted)
    assert opt.param_groups[1]["weight_decay"] == 0.25

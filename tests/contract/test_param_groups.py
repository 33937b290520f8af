"""What stands in ``param_groups`` and ``defaults``."""

import json

import pytest
import torch
from lib.contract import make_parameters, run, twin, warmup

import lrfused
from lrfused import schedules

OWN = {
    "max_grad_norm": 1.0,
    "clip_value": 0.5,
    "agc": 0.1,
    "weight_decay_mode": "lr_ratio",
    "peak_lr": 0.1,
    "start_step": 2,
    "loss_scale": "dynamic",
}

CARRIED = ("lrfused", "lrfused_group", "lrfused_step", "lrfused_skipped_steps")
CARRIED += ("lrfused_consecutive_skips", "lrfused_clipped_steps", "lrfused_growth_tracker")
CARRIED += ("lrfused_hysteresis_tracker", "lrfused_loss_scale")


def options_of(kind, given):
    """As schedules, and with the options that are ours."""
    scheduled = {} if given == "none" else {"lr": warmup(), **kind.scheduled}
    return {**scheduled, **(OWN if given == "all" else {})}


each = pytest.mark.parametrize("given", ["none", "schedules", "all"])


def test_it_is_a_torch_optimizer(rng, kind):
    """lrfused.AdamW is a subclass of torch.optim.AdamW, SGD of torch.optim.SGD."""
    opt = kind.ours(make_parameters(rng))
    assert isinstance(opt, torch.optim.Optimizer) and isinstance(opt, lrfused.FusedOptimizer)
    of_torch = getattr(torch.optim, kind.cls.__name__, torch.optim.Optimizer)
    assert isinstance(opt, of_torch)


@each
def test_groups_have_exactly_torchs_keys(rng, kind, given):
    """param_groups have torch's keys in memory, and beside them the same few, whatever the
    schedules and options: what checkpoints carry."""
    params = make_parameters(rng)
    theirs = kind.theirs(twin(params))
    ours = kind.ours(params, **options_of(kind, given))
    expected = [*theirs.param_groups[0], *CARRIED]
    assert list(ours.param_groups[0]) == expected
    run(rng, 2, ours)
    ours.state_dict()
    ours.load_state_dict(ours.state_dict())
    ours.add_param_group({"params": make_parameters(rng), "agc": 0.2, "lr": warmup()})
    theirs.load_state_dict(theirs.state_dict())  # by which torch gives any optimizer a default
    theirs.add_param_group({"params": make_parameters(rng)})
    for group, other in zip(ours.param_groups, theirs.param_groups, strict=True):
        assert sorted(group) == sorted([*other, *CARRIED])


@each
def test_defaults_have_exactly_torchs_keys(rng, kind, given):
    """defaults have exactly torch's keys; "betas" in defaults; schedules are there as numbers."""
    params = make_parameters(rng)
    theirs = kind.theirs(twin(params))
    ours = kind.ours(params, **options_of(kind, given))
    assert list(ours.defaults) == list(theirs.defaults)
    assert {*kind.hyperparameters} <= {*ours.defaults}
    json.dumps(ours.defaults)


def test_defaults_hold_the_schedules_first_value(rng, kind):
    """super().__init__ and add_param_group get schedule(0)."""
    lr = schedules.linear(0.5, 0.1, 10)
    opt = kind.ours(make_parameters(rng), lr=lr)
    assert type(opt.defaults["lr"]) is float and opt.defaults["lr"] == lr(0) == 0.5
    opt.add_param_group({"params": make_parameters(rng), "weight_decay": lr})
    assert opt.param_groups[0]["lr"] == 0.5
    assert opt.param_groups[1]["weight_decay"] == 0.5


def test_group_values_are_host_numbers(rng, kind, backend):
    """lr, weight_decay, betas and eps are Python floats, before and after steps, to be logged."""
    opt = kind.ours(make_parameters(rng), lr=warmup(), **kind.scheduled, backend=backend)

    def check(_):
        group = opt.param_groups[0]
        for key in kind.hyperparameters:
            assert type(group[key]) is (tuple if key == "betas" else float)
        assert all(type(value) is float for value in group.get("betas", ()))
        json.dumps({k: group[k] for k in opt.defaults})

    check(0)
    run(rng, 3, opt, after=check)


def test_other_hyperparameters_as_tensors_are_mirrored_as_numbers(rng, kind):
    """weight_decay, eps and betas given as Tensors: host numbers in the group, and followed."""
    decay = torch.tensor(0.5)
    opt = kind.ours(make_parameters(rng), lr=0.1, weight_decay=decay)
    assert type(opt.param_groups[0]["weight_decay"]) is float
    theirs = kind.theirs(twin(opt.param_groups[0]["params"]), lr=0.1, weight_decay=0.5)
    run(rng, 2, opt, theirs)
    decay.fill_(0.25)
    theirs.param_groups[0]["weight_decay"] = 0.25
    run(rng, 2, opt, theirs)
    assert opt.param_groups[0]["weight_decay"] == 0.25
    for a, b in zip(opt.param_groups[0]["params"], theirs.param_groups[0]["params"], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_a_tensor_lr_stays_the_same_object(rng, kind):
    """A Tensor lr stays the same Tensor object, through steps, saving and loading."""
    lr = torch.tensor(0.01)
    opt = kind.ours(make_parameters(rng), lr=lr)
    run(rng, 2, opt)
    saved = opt.state_dict()
    lr.fill_(0.5)
    opt.load_state_dict(saved)
    assert opt.param_groups[0]["lr"] is lr
    assert opt.defaults["lr"] is lr


def test_unknown_keys_are_kept(rng, kind):
    """initial_lr, lr_scale, param_names and unknown keys are kept, also by checkpoints."""
    model = torch.nn.Linear(3, 2)
    group = {
        "params": list(model.named_parameters()),
        "lr_scale": 0.5,
        "initial_lr": 0.3,
        "who": "me",
    }
    opt = kind.ours([group], lr=warmup())
    saved = opt.state_dict()
    again = {"params": list(torch.nn.Linear(3, 2).named_parameters()), "lr_scale": 0.5}
    other = kind.ours([again], lr=warmup())
    other.load_state_dict(saved)
    for kept in (opt.param_groups[0], saved["param_groups"][0], other.param_groups[0]):
        assert (kept["lr_scale"], kept["initial_lr"], kept["who"]) == (0.5, 0.3, "me")
        assert kept["param_names"] == ["weight", "bias"]


def test_named_parameters_are_taken(rng, kind):
    """(name, parameter) pairs, as torch takes them."""
    model, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    opt = kind.ours(model.named_parameters(), lr=warmup())
    theirs = kind.theirs(other.named_parameters())
    assert opt.param_groups[0]["param_names"] == theirs.param_groups[0]["param_names"]
    assert opt.param_groups[0]["params"][0] is model.weight
    run(rng, 2, opt)


def test_timms_lr_scale_can_be_multiplied_in(rng, kind):
    """group["lr"] = value * group["lr_scale"] at every step, as timm's schedulers do."""
    a, b = make_parameters(rng), make_parameters(rng)
    ours = kind.ours([{"params": a, "lr_scale": 0.5}, {"params": b, "lr_scale": 1.0}])
    theirs = kind.theirs([{"params": twin(a), "lr_scale": 0.5}, {"params": twin(b)}])
    for step in range(10):
        for opt in (ours, theirs):
            for group in opt.param_groups:
                group["lr"] = 0.01 * (step + 1) * group.get("lr_scale", 1.0)
        run(rng, 1, ours, theirs)
    for x, y in zip(a + b, (p for g in theirs.param_groups for p in g["params"]), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6)


def test_changed_defaults_hold_for_later_groups(rng, kind):
    """What the caller writes to opt.defaults is the default of groups added later, as in torch."""
    params = make_parameters(rng)
    for opt in (kind.ours(params), kind.theirs(twin(params))):
        opt.defaults["lr"] = 0.25
        opt.defaults["weight_decay"] = 0.5
        opt.add_param_group({"params": make_parameters(rng)})
        assert opt.param_groups[1]["lr"] == 0.25
        assert opt.param_groups[1]["weight_decay"] == 0.5


def test_a_schedule_is_not_a_number():
    """A Schedule has no ordering and bool() of it raises."""
    lr = warmup()
    for forbidden in (lambda: bool(lr), lambda: lr < 1.0, lambda: lr >= 0.0, lambda: lr >= lr):
        with pytest.raises(TypeError):
            forbidden()


def test_repr_shows_the_numbers(rng, kind):
    """repr(optimizer) is torch's, with the mirrored numbers."""
    opt = kind.ours(make_parameters(rng), lr=schedules.linear(0.5, 0.1, 10))
    assert "lr: 0.5" in repr(opt)

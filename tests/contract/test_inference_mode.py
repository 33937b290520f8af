"""Inside torch.inference_mode(), and over parameters on the meta device.

What only reads leaves nothing behind that a later step or load trips over.
"""

import copy
import io

import pytest
import torch
from lib.contract import assert_same_bits, make_parameters, parameters_of, tensors_of, twin, warmup
from lib.optimizers import with_state
from torch import nn

import lrfused
from lrfused import schedules


def options(kind, **others):
    """Everything that has state of its own."""
    return {
        "lr": warmup(),
        **kind.scheduled,
        "max_grad_norm": 1.0,
        "loss_scale": lrfused.LossScale(init=64.0, growth_interval=3),
        **kind.widest,
        **kind.carrying,
        **others,
    }


def run(seed, steps, opt):
    """Steps over gradients that depend on the seed alone; the first overflows."""
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        opt.scale(torch.zeros(()))
        for p in parameters_of(opt):
            p.grad = 64.0 * torch.randn(p.shape, generator=generator)
            if step == 0:
                p.grad.view(-1)[0] = torch.inf
        opt.step()


def goes_on(seed, opt):
    """Steps, loads of two kinds, a copy: all that could trip; what it comes to."""
    run(seed, 3, opt)
    kept = copy.deepcopy(opt.state_dict())
    run(seed + 1, 2, opt)
    opt.load_state_dict(kept)
    run(seed + 2, 2, opt)
    opt.load_state_dict(opt.state_dict())
    opt = copy.deepcopy(opt)
    run(seed + 3, 2, opt)
    return [*tensors_of(opt), str(opt.metrics()), str(opt.state_dict()["param_groups"])]


def assert_same_end(ours, theirs):
    assert_same_bits(ours[:-2], theirs[:-2])
    assert ours[-2:] == theirs[-2:]


def restore_other(opt):
    groups = [{"params": twin(group["params"])} for group in opt.param_groups]
    other = opt.kind.ours(groups, **options(opt.kind))
    other.load_state_dict(opt.state_dict())
    opt.load_state_dict(other.state_dict())


def report(opt):
    lrfused.ReportLR(opt).step()


INSIDE = {
    "metrics": lambda opt: opt.metrics(),
    "state_dict": lambda opt: opt.state_dict(),
    "scale": lambda opt: opt.scale(torch.ones(())),
    "sync_mirrors": lambda opt: opt.sync_mirrors(),
    "repr": repr,
    "load": lambda opt: opt.load_state_dict(opt.state_dict()),
    "load of another": restore_other,
    "push": lambda opt: opt.push(),
    "a report": report,
    "deepcopy": lambda opt: copy.deepcopy(opt).metrics(),
    "zero_grad": lambda opt: opt.zero_grad(),
    "an edit and metrics": lambda opt: opt.param_groups.reverse() or opt.metrics(),
    "a schedule": lambda opt: opt.param_groups[0].update(lr=schedules.linear(0.1, 0.2, 9)),
    "add_param_group": lambda opt: opt.add_param_group({"params": []}),
    "a step": lambda opt: run(9, 2, opt),
}


def ends_of(rng, kind, at, inside, backend="auto"):
    """What two runs come to, one of which does something in the mode after some steps."""
    seed, params = int(rng.numpy.integers(2**31)), make_parameters(rng, shapes=[(3, 2), (), (5,)])
    for mode in (True, False):
        opt = kind.ours([{"params": p} for p in twin(params)], **options(kind, backend=backend))
        opt.kind = kind
        run(seed, at, opt)
        with torch.inference_mode(mode):
            inside(opt)
        yield goes_on(seed, opt)


@pytest.mark.parametrize("at", [0, 4])
@pytest.mark.parametrize("inside", INSIDE.values(), ids=INSIDE)
def test_later_steps_and_loads_are_as_without_the_mode(rng, kind, inside, at):
    """metrics(), state_dict(), scale(), sync_mirrors(), repr(), load_state_dict(), push(), an edit,
    even steps, inside the mode, before the first step and in mid-run: steps, loads and copies
    outside of it give the bits of a run that never was in the mode."""
    assert_same_end(*ends_of(rng, kind, at, inside))


@pytest.mark.parametrize("at", [0, 4])
def test_so_they_are_over_every_backend(rng, kind, backend, at):
    """All of that, one after the other."""

    def everything(opt):
        for inside in INSIDE.values():
            inside(opt)

    assert_same_end(*ends_of(rng, kind, at, everything, backend))


def test_an_optimizer_may_be_made_inside(rng, kind, backend):
    """Over parameters that were made outside."""
    seed, params = int(rng.numpy.integers(2**31)), make_parameters(rng, shapes=[(3, 2), (), (5,)])
    ends = []
    for mode in (True, False):
        both = twin(params)
        with torch.inference_mode(mode):
            opt = kind.ours(both, **options(kind, backend=backend))
        ends.append(goes_on(seed, opt))
    assert_same_end(*ends)


@pytest.mark.parametrize("at", [0, 4])
def test_a_checkpoint_may_be_made_inside_and_loaded_outside(rng, kind, backend, at):
    """The validation pass saves the best checkpoint: its tensors are inference tensors. Loaded
    twice, or from a file, it goes on, and is not changed by that."""
    seed, params = int(rng.numpy.integers(2**31)), make_parameters(rng, shapes=[(3, 2), (), (5,)])
    ends = []
    for mode in (True, False):
        opt = kind.ours(twin(params), **options(kind, backend=backend))
        run(seed, at, opt)
        with torch.inference_mode(mode):
            saved = opt.state_dict()
            file = io.BytesIO()
            torch.save(saved, file)
        other = kind.ours(twin(parameters_of(opt)), **options(kind, backend=backend))
        other.load_state_dict(saved)
        run(seed, 2, other)
        other.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
        run(seed, 2, other)
        other.load_state_dict(saved)
        ends.append(goes_on(seed, other))
    assert_same_end(*ends)


@pytest.mark.parametrize("at", [0, 3])
def test_a_validation_pass_between_steps_changes_nothing(rng, kind, backend, at):
    """Forward, metrics and logging inside the mode after every step from some step on."""
    seed = int(rng.numpy.integers(2**31))
    ends = []
    for mode in (True, False):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        opt = kind.ours(model.parameters(), **options(kind, backend=backend))
        for step in range(6):
            if step >= at:
                with torch.inference_mode(mode):
                    model(torch.ones(2, 3))
                    opt.metrics()
            opt.zero_grad()
            opt.scale(model(torch.randn(5, 3)).square().mean()).backward()
            opt.step()
        ends.append([*tensors_of(opt), str(opt.metrics()), ""])
    assert_same_end(*ends)


@with_state
def test_moments_that_were_made_inside_are_replaced_by_a_load(rng, kind, backend):
    """Somebody fills the state inside the mode: nobody may write to it outside, and a load does
    not."""
    seed, params = int(rng.numpy.integers(2**31)), make_parameters(rng, shapes=[(3, 2), (5,)])
    ends = []
    for mode in (True, False):
        opt = kind.ours(twin(params), **options(kind, backend=backend))
        run(seed, 2, opt)
        saved = copy.deepcopy(opt.state_dict())
        with torch.inference_mode(mode):
            for state in opt.state.values():
                state.update({key: torch.zeros_like(state[key]) for key in kind.moments})
        opt.load_state_dict(saved)
        ends.append(goes_on(seed, opt))
    assert_same_end(*ends)


# meta


READ = {name: INSIDE[name] for name in ("metrics", "state_dict", "scale", "sync_mirrors", "repr")}
READ |= {name: INSIDE[name] for name in ("load", "deepcopy", "push", "a report")}


@pytest.mark.parametrize("read", READ.values(), ids=READ)
@pytest.mark.parametrize("how", ["to_empty", "replaced"])
def test_parameters_on_meta_may_get_memory_later(rng, kind, read, how):
    """A model is built on the meta device, and the optimizer over it; what only reads works there.
    After to_empty(), or with other parameters in the groups, and the weights loaded, the steps are
    those of a model that had memory from the beginning."""
    seed = int(rng.numpy.integers(2**31))
    weights = nn.Linear(3, 2).state_dict()
    ends = []
    for device in ("meta", "cpu"):
        model = nn.Linear(3, 2, device=device)
        opt = kind.ours(model.parameters(), **options(kind))
        read(opt)
        if how == "to_empty":
            model.to_empty(device="cpu")
        else:
            model = nn.Linear(3, 2)
        opt.param_groups[0]["params"] = list(model.parameters())
        model.load_state_dict(weights)
        ends.append(goes_on(seed, opt))
    assert_same_end(*ends)


def test_the_numbers_of_an_optimizer_on_meta(rng, kind):
    """metrics(), state_dict() and repr() of one that has not stepped."""
    model = nn.Linear(3, 2, device="meta")
    opt = kind.ours(model.parameters(), **options(kind))
    metrics = opt.metrics()
    assert (metrics["steps"], metrics["lr"], metrics["loss_scale"]) == (0, [warmup()(0)], 64.0)
    saved = opt.state_dict()
    assert saved["state"] == {} and saved["param_groups"][0]["lrfused_step"].device.type == "cpu"
    assert "lr follows" in repr(opt)

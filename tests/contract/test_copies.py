"""deepcopy, pickle, other processes: a copy goes on bit-equal and independent."""

import copy
import inspect
import multiprocessing
import pickle

import pytest
import torch
from lib import emulating
from lib.contract import (
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

import lrfused
from lrfused import schedules


def build(rng, kind, backend="auto", **options):
    """An optimizer with everything that a copy has to take along."""
    opt = kind.ours(
        [
            {"params": make_parameters(rng), "lr": warmup(), "agc": 0.5},
            {"params": make_parameters(rng), "lr": torch.tensor(0.01), "who": "me"},
        ],
        max_grad_norm=1.0,
        loss_scale=lrfused.LossScale(init=8.0, growth_interval=2),
        backend=backend,
        **kind.scheduled,
        **kind.widest,
        **kind.carrying,
        **{"ema_decay": 0.9, **options},
    )
    masked = parameters_of(opt)[::3]
    opt.set_masks({p: torch.rand(p.shape, generator=rng.torch) < 0.6 for p in masked})
    return opt


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda opt: pickle.loads(pickle.dumps(opt)),
    "deepcopy of a pair": lambda opt: copy.deepcopy((parameters_of(opt), opt))[1],
}


@pytest.mark.parametrize("steps", [0, 5])
@pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)
def test_a_copy_goes_on_bit_equal(rng, kind, backend, steps, duplicate):
    """deepcopy and pickle keep everything, before the first step and in mid-run."""
    opt = build(rng, kind, backend)
    run(rng, steps, opt)
    other = duplicate(opt)
    assert type(other) is kind.cls
    run(rng, 6, opt, other)
    assert_same_run(other, opt)
    assert other.metrics() == opt.metrics()
    assert other.param_groups[0]["lr"] == opt.param_groups[0]["lr"] == warmup()(steps + 6)
    assert other.param_groups[1]["who"] == "me"


@pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)
def test_a_copy_is_independent(rng, kind, backend, duplicate):
    """Steps of the one leave the other as it was, both ways."""
    opt = build(rng, kind, backend)
    run(rng, 3, opt)
    other = duplicate(opt)
    for moving, still in ((opt, other), (other, opt)):
        before = snapshot(still)
        run(rng, 3, moving)
        moving.param_groups[1]["lr"].fill_(0.5)
        assert_unchanged(still, before)


def test_a_copy_of_model_and_optimizer_stays_together(rng, kind):
    """deepcopy((model, optimizer)): the copied optimizer moves the copied model."""
    model = torch.nn.Linear(4, 2)
    opt = kind.ours(model.parameters(), lr=warmup())
    run(rng, 2, opt)
    other_model, other = copy.deepcopy((model, opt))
    assert parameters_of(other)[0] is other_model.weight
    before = other_model.weight.detach().clone()
    run(rng, 1, other)
    assert not torch.equal(before, other_model.weight)


def test_an_override_survives_a_copy(rng, kind):
    """A value written over a schedule leads in the copy too, without a second warning."""
    opt = build(rng, kind)
    opt.param_groups[0]["lr"] = 0.5
    with pytest.warns(UserWarning, match="lr"):
        run(rng, 1, opt)
    other = copy.deepcopy(opt)
    run(rng, 2, opt, other)
    assert other.metrics()["lr"][0] == 0.5
    assert_same_run(other, opt)


def test_inputs_of_a_copy_belong_to_the_copy(rng, kind):
    """A deepcopied optimizer's schedule reads the copied tensor; copied with it, it is found."""
    gate = torch.tensor(1.0)
    opt = kind.ours(make_parameters(rng), lr=0.1 * schedules.input(gate, "gate"))
    run(rng, 1, opt)
    other, other_gate = copy.deepcopy((opt, gate))
    other_gate.fill_(0.5)
    run(rng, 1, opt, other)
    assert opt.metrics()["lr"][0] == pytest.approx(0.1)
    assert other.metrics()["lr"][0] == pytest.approx(0.05)


def test_hooks_and_defaults_survive_as_in_torch(rng, kind):
    """A copy has torch's attributes: defaults, hooks (empty), zero_grad, add_param_group."""
    opt = copy.deepcopy(build(rng, kind))
    opt.register_step_post_hook(lambda *_: None)
    opt.add_param_group({"params": make_parameters(rng)})
    run(rng, 2, opt)
    usual = inspect.signature(kind.cls).parameters["lr"].default
    assert opt.param_groups[2]["lr"] == opt.defaults["lr"] == usual
    opt.zero_grad()


def step_elsewhere(opt, gradients):
    """In the child: three steps; back come the optimizer's state and parameters."""
    for step in gradients:
        for param, gradient in zip(parameters_of(opt), step, strict=True):
            param.grad = gradient
        opt.step()
    return [p.detach().clone() for p in parameters_of(opt)], opt.state_dict()


def test_a_spawned_process_steps_on(rng, kind, backend):
    """multiprocessing (spawn): the optimizer goes to another process and steps there."""
    opt = build(rng, kind, backend)
    run(rng, 2, opt)
    gradients = []
    for _ in range(3):
        give_gradients(rng, opt)
        gradients.append([p.grad.clone() for p in parameters_of(opt)])
    opt.zero_grad()
    with multiprocessing.get_context("spawn").Pool(1, emulating.inherit) as pool:
        params, saved = pool.apply(step_elsewhere, (copy.deepcopy(opt), gradients))
    step_elsewhere(opt, gradients)
    other = build(rng, kind, backend)
    for p, q in zip(parameters_of(other), params, strict=True):
        p.data = q
    other.load_state_dict(saved)
    assert_same_run(other, opt)


def test_parameters_in_shared_memory_step(rng, kind):
    """model.share_memory() before or after the first step."""
    params = make_parameters(rng)
    plain = kind.ours(twin(params))
    opt = kind.ours(params)
    run(rng, 2, opt, plain)
    for p in parameters_of(opt):
        p.share_memory_()
    run(rng, 2, opt, plain)
    assert_same_run(opt, plain)


def test_shallow_copies_of_the_dictionary_step(rng, kind):
    """Lightning's wrapper: the optimizer's __dict__ in an object of a derived class."""
    opt = kind.ours(make_parameters(rng), lr=warmup())
    plain = kind.ours(twin(parameters_of(opt)), lr=warmup())

    class Wrapper:
        def __init__(self, optimizer):
            self.__dict__ = {k: v for k, v in optimizer.__dict__.items() if k != "step"}
            self.__class__ = type("Wrapped", (self.__class__, optimizer.__class__), {})
            self.wrapped = optimizer

        def step(self, closure=None):
            return self.wrapped.step(closure)

    wrapper = Wrapper(opt)
    assert isinstance(wrapper, kind.cls)
    run(rng, 3, wrapper, plain)
    assert wrapper.state_dict()["param_groups"][0]["lrfused_step"] == 3
    assert_same_run(opt, plain)

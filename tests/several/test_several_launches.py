"""What a step on several devices launches, copies and refuses, and what it leaves alone."""

from contextlib import nullcontext

import pytest
import torch
from lib.fake_devices import DEVICES, FIRST, LEAD, SECOND, run_apart, start_apart
from lib.interpreting import interpreted
from lib.late_device import NothingWaits
from lib.runs import FEW, advance, assert_same_bits, random_problem, run, set_gradients
from torch.overrides import TorchFunctionMode

from lrfused import schedules as S
from lrfused.backends import multi_device
from lrfused.backends.registry import choose_for_all
from lrfused.backends.work import UNKNOWN
from lrfused.engine import bind

INF = float("inf")


# Launches


def count(launches, device, is_apply):
    return launches.count((device, is_apply))


@pytest.mark.parametrize("devices", [DEVICES, (FIRST, SECOND), (FIRST, LEAD)], ids=str)
@pytest.mark.parametrize("options", [{}, {"max_grad_norm": 1.0, "loss_scale": 8.0}], ids=repr)
def test_launches_by_device(rng, backend, rule, launches, devices, options):
    """Measure, plan, apply on the lead, of which two may be left out; measure, apply on a peer."""
    run_apart(random_problem(rng, FEW, 2), backend, devices, **options)
    here = LEAD in devices
    assert count(launches, LEAD, False) == 2 * (1 + (bool(options) and here))
    assert count(launches, LEAD, True) == 2 * here
    for device in (FIRST, SECOND):
        assert count(launches, device, False) == 2 * (bool(options) and device in devices)
        assert count(launches, device, True) == 2 * (device in devices)


def test_one_device_is_stepped_as_ever(rng, backend, launches):
    """Measure and plan are one launch, whichever parameters are frozen elsewhere."""
    problem = random_problem(rng, FEW, 2, none=0.0)
    for gradients in problem.gradients:
        gradients[1] = None
    made = run_apart(problem, backend, (LEAD, FIRST, LEAD), max_grad_norm=1.0)
    assert launches == [(LEAD, False), (LEAD, True)] * 2
    assert not isinstance(made.opt._engine.table.run, multi_device.StepTogether)


def test_the_backend_has_to_take_every_device(rng, backend, monkeypatch):
    """Also the lead, where the first parameter is, though frozen: there is the plan."""
    seen = []

    def choose(choice, devices):
        seen.append(list(devices))
        return choose_for_all(choice, devices)

    monkeypatch.setattr(bind, "choose_for_all", choose)
    problem = random_problem(rng, FEW, 1, none=0.0)
    problem.gradients[0][0] = problem.gradients[0][3] = None
    run_apart(problem, backend, (LEAD, SECOND, FIRST, torch.device("cpu", 3)))
    assert seen == [[LEAD, FIRST, SECOND]]


@interpreted
@pytest.mark.parametrize("kind", ["cuda", "xpu"])
def test_triton_launches_where_the_memory_is(monkeypatch, kind):
    from lrfused.backends.triton.launch import _on

    module = torch.get_device_module(kind)
    monkeypatch.setattr(module, "current_device", lambda: 1)
    assert isinstance(_on(torch.device(kind, 1)), nullcontext)
    assert _on(torch.device(kind, 2)).idx == 2


# Copies


class Without(TorchFunctionMode):
    """Leaves out one copy between devices of so many a step; those of uploads are none."""

    names = ("copy_", "index_copy_", "bitwise_or_")

    def __init__(self, left_out=None, a_step=1):
        super().__init__()
        self.left_out, self.a_step, self.seen = left_out, a_step, 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        between = name in self.names and (name != "copy_" or kwargs.get("non_blocking"))
        if between and args[0].numel():
            self.seen += 1
            if (self.seen - 1) % self.a_step == self.left_out:
                return args[0]
        return func(*args, **kwargs)


def needing_everything(rng, rule):
    """A bound that an input scales; a first step that a peer's overflow skips."""
    problem = random_problem(rng, [(5,), (70,), (3, 3), (9,)], 2, none=0.0)
    problem.gradients[0][1][3] = 1e38
    x = torch.tensor(0.5, dtype=torch.float64)
    clip_value = S.input(x, "x") * S.linear(0.01, 0.005, 3)
    options = {"max_grad_norm": 0.01, "loss_scale": 2.0**-30}
    if rule.name == "adamw":
        options["eps"] = 0.01
    return problem, {"clip_value": clip_value, **options}


def ends(problem, backend, options, *left_out):
    """Parameters after both steps, and how many copies there were."""
    made = start_apart(problem.values, backend, (LEAD, FIRST), **options)
    with Without(*left_out) as copies:
        for gradients in problem.gradients:
            set_gradients(made.params, gradients)
            made.opt.step()
    return torch.cat([p.detach().reshape(-1) for p in made.params]), copies.seen


# The signs of Lion's update do not depend on most of what is copied.
@pytest.mark.parametrize("rule", ["adamw", "sgd"], indirect=True)
def test_every_copy_is_needed(rng, backend, rule):
    """Without any one of them the parameters end elsewhere."""
    problem, options = needing_everything(rng, rule)
    want = torch.cat([p.detach().reshape(-1) for p in run(problem, **options).params])
    got, copies = ends(problem, backend, options)
    assert_same_bits(got, want)
    # Words, loss scale and input; what is measured, for CUDA the overflows; what is decided.
    a_step = 5 + (backend == "cuda")
    assert copies == 2 * a_step
    for left_out in range(a_step):
        got, _ = ends(problem, backend, options, left_out, a_step)
        assert not torch.equal(got, want), f"copy {left_out} is not needed"


def test_nothing_is_mirrored_where_nothing_is_measured(rng, backend):
    problem = random_problem(rng, FEW, 2, none=0.0)
    options = {"clip_value": S.input(torch.tensor(0.5), "x")}
    got, copies = ends(problem, backend, options)
    want = torch.cat([p.detach().reshape(-1) for p in run(problem, **options).params])
    assert_same_bits(got, want)
    assert copies == 2


# What lies elsewhere


def test_addresses_of_what_lies_elsewhere_are_0(rng, backend):
    x = torch.tensor(0.5)
    options = {"clip_value": S.input(x, "x"), "lr": 0.1 * S.input(torch.tensor(0.1), "y")}
    made = run_apart(random_problem(rng, FEW, 1), backend, amsgrad=True, **options)
    together = made.opt._engine.table.run
    for share, device in zip((together._lead, *together._peers), DEVICES, strict=True):
        work = share._work
        for index, (entry, param) in enumerate(zip(work.entries, made.params, strict=True)):
            is_here = param.posed == device
            flat = [operand.flat for operand in entry.operands]
            assert len(flat) == 4
            assert all((f.data_ptr() != 0) == is_here for f in flat)
            assert (work.addresses[index, 0] != 0) == is_here
            assert work.addresses[index, 1] >= 0
        read = [work.input(node) for _, _, sch in work.hyper.programs for node in sch.inputs]
        if device == LEAD:
            assert any(tensor is x for tensor in read)
        else:
            assert not any(tensor is x for tensor in read)
            assert sorted(tensor.is_meta for tensor in read) == [False, True]


# What is refused, and what waits


def test_a_capture_of_several_devices_is_refused(rng, backend, launches, monkeypatch):
    """Before anything has changed."""
    problem = random_problem(rng, FEW, 2, none=0.0)
    made = start_apart(problem.values, backend, max_grad_norm=1.0)
    advance(made, problem.gradients[0])
    del launches[:]
    before = [p.detach().clone() for p in made.params]
    monkeypatch.setattr(multi_device, "is_capturing", lambda device: True)
    set_gradients(made.params, problem.gradients[1])
    devices = r"\(cpu, cpu:1, cpu:2\) and a CUDA graph belongs to one"
    with pytest.raises(RuntimeError, match=f"step: the parameters are on several .*{devices}"):
        made.opt.step()
    assert not launches and made.opt.metrics()["steps"] == 1
    assert all(map(torch.equal, made.params, before))


@pytest.mark.parametrize("options", [{}, {"max_grad_norm": 1.0, "loss_scale": "dynamic"}], ids=repr)
def test_no_step_on_several_devices_waits(rng, backend, rule, monkeypatch, options):
    problem = random_problem(rng, FEW, 4, none=0.0)
    made = start_apart(problem.values, backend, **options)
    advance(made, problem.gradients[0])
    together = made.opt._engine.table.run
    kind, work = type(together._lead.step), made.opt._engine.table.work
    run_phases = kind.run

    def without_the_interpreter(step, call, phases):
        with torch._C.DisableTorchFunction():
            run_phases(step, call, phases)

    monkeypatch.setattr(kind, "run", without_the_interpreter)
    monkeypatch.setattr(kind, "outcome", lambda step, work: UNKNOWN)
    for gradients in problem.gradients[1:]:
        set_gradients(made.params, gradients)
        assert not made.opt._engine._fast_path(made.opt.param_groups, made.opt.state).staged
        work.grad_scale, work.found_inf = torch.tensor(2.0), torch.tensor([0.0])
        with NothingWaits():
            assert together(work) == UNKNOWN
    assert made.opt.metrics()["steps"] == 4

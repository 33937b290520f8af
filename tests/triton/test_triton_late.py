"""The Triton backend's side of a device that is late: nothing waits, errors stay, captures."""

import pytest
import torch
from lib.interpreting import is_there
from lib.late_device import LateQueue, NothingWaits
from lib.runs import FEW, assert_same_bits, give_gradient, random_problem, set_gradients, start

from lrfused import schedules as S
from lrfused.engine import counters, engine, rebind, slow_path

if not is_there:
    pytest.skip("Triton is not installed or not interpreted", allow_module_level=True)

from lrfused.backends.triton import launch
from lrfused.backends.triton import step as triton_step
from lrfused.device import host_to_device

NAN = float("nan")


@pytest.fixture
def queue(monkeypatch):
    """What a step asks of the device; but for kernels and uploads, which are done at once."""
    queue = LateQueue()
    monkeypatch.setattr(counters, "DeviceQueue", lambda device: queue)
    for module in (engine, rebind, slow_path, launch, triton_step):
        monkeypatch.setattr(module, "is_capturing", lambda device: queue.capturing)
    monkeypatch.setattr(
        triton_step, "Upload", lambda *where, **how: host_to_device.Upload(*where, Direct(), **how)
    )
    original = triton_step.launch

    def run(*arguments, **how):
        with torch._C.DisableTorchFunction():
            original(*arguments, **how)

    monkeypatch.setattr(triton_step, "launch", run)
    return queue


class Direct(LateQueue):
    def copy(self, target, source):
        target.copy_(source)


def late(rng, **options):
    """After a step, from which on nobody knows what is decided."""
    made = start(random_problem(rng, FEW, 1).values, "triton", **options)
    give(rng, made)
    made.opt.step()
    made.opt._engine.table.run.knows = False
    return made


def give(rng, made, value=None):
    gradients = random_problem(rng, FEW, 1).gradients[0]
    if value is not None:
        gradients[2][3, 4] = value
    set_gradients(made.params, gradients)


OPTIONS = [
    {},
    {"max_grad_norm": 0.3, "loss_scale": "dynamic", "lr": S.warmup_cosine(0.1, 2, 9)},
    {"clip_value": 0.1, "agc": 0.1, "write_grads": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "+".join(options) or "default")
def test_no_step_waits(rng, rule, queue, options):
    made = late(rng, **options, **rule.largest)
    for value in (torch.tensor(1.0), torch.tensor([0.0]), 0):
        give(rng, made)
        vars(made.opt).update(grad_scale=torch.tensor(2.0), found_inf=value)
        with NothingWaits(queue):
            made.opt.step()
        queue.run()
    assert made.opt.metrics()["skipped_steps"] == 1
    assert made.opt.metrics()["steps"] == 3


def test_the_first_error_stays_until_the_host_has_seen_it(rng, queue):
    made = late(rng, nonfinite="raise", eps=S.select(S.equal(S.step, 2), NAN, 1e-8))
    for value in (NAN, None, None):  # the gradient; good; and then eps is nan
        give(rng, made, value)
        made.opt.step()
    with pytest.raises(RuntimeError, match="step 1: a gradient is not finite"):
        made.opt.metrics()
    assert made.opt.metrics()["steps"] == 2
    made.opt.step()
    made.opt.state[made.params[0]]["step"].fill_(-1.0)  # no count: another error behind it
    made.opt.step()
    with pytest.raises(RuntimeError, match=r"step 2: eps of param_groups\[0\] is nan"):
        made.opt.sync_mirrors()
    made.opt.param_groups[0]["eps"] = 1e-8
    with pytest.warns(UserWarning, match="overrides its schedule"):
        made.opt.step()
    with pytest.raises(RuntimeError, match=r"step 2: state\['step'\] of parameter 0 is -1.0"):
        made.opt.state_dict()


# Captures


def test_a_capture_keeps_its_own_gradients_and_sees_pushed_numbers(rng, rule, queue):
    made = late(rng)
    run = made.opt._engine.table.run
    give(rng, made)
    queue.capturing = True
    made.opt.step()  # it is done here; a graph would do it again
    queue.capturing = False
    (captured,) = run._gradients._fixed.values()
    addresses = captured.clone()
    assert made.opt._engine.bookkeeping.is_captured
    give(rng, made)
    made.opt.step()
    assert_same_bits(captured, addresses)
    shared = run._gradients._tensor
    assert shared.data_ptr() != captured.data_ptr() and not torch.equal(shared, captured)
    numbers = run._numbers._tensor
    made.opt.param_groups[0]["lr"] = 0.375
    assert 0.375 not in numbers
    run._gradients._spares.clear()
    made.opt.push()
    assert 0.375 in numbers and run._numbers._tensor is numbers
    assert len(run._gradients._spares) == host_to_device.SPARES


def test_what_has_to_be_compiled_is_refused_before_anything_is_launched(rng, queue, monkeypatch):
    monkeypatch.setattr(launch, "_compiled", set())
    made = late(rng, max_grad_norm=1.0)
    doubled = made.params[1].grad.double()  # apply has not seen such a pair
    give_gradient(made.params[1], doubled)
    before = {k: v.clone() for k, v in made.opt.state[made.params[0]].items()}
    queue.capturing = True
    with pytest.raises(RuntimeError, match="step: measure_kernel has to be compiled"):
        made.opt.step()
    queue.capturing = False
    for key, value in before.items():
        assert_same_bits(made.opt.state[made.params[0]][key], value)
    made.opt.step()
    queue.capturing = True
    made.opt.step()


def test_apply_alone_is_asked_for_before_plan_is_launched(rng, queue, monkeypatch):
    seen = set()
    monkeypatch.setattr(launch, "_compiled", seen)
    made = late(rng)
    seen.difference_update([key for key in seen if key[0] is triton_step.apply_kernel])
    steps = made.opt._engine.bookkeeping.state(made.opt.param_groups).words[0].clone()
    queue.capturing = True
    with pytest.raises(RuntimeError, match="step: apply_kernel has to be compiled"):
        made.opt.step()
    assert made.opt._engine.bookkeeping.state(made.opt.param_groups).words[0] == steps

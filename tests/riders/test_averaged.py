"""Averages in place of the weights: the context manager, and copies to another model."""

import copy
import sys

import pytest
import torch
from lib.runs import assert_same_bits

import lrfused


def trained(rng, dtype=torch.float32, steps=4, **options):
    """A model with batch normalization, and an optimizer with averages, after some steps."""
    model = torch.nn.Sequential(
        torch.nn.Linear(5, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1)
    ).to(dtype)
    opt = lrfused.AdamW(model.parameters(), lr=0.05, ema_decay=0.8, **options)
    for _ in range(steps):
        opt.zero_grad()
        model(torch.randn(6, 5, generator=rng.torch).to(dtype)).square().mean().backward()
        opt.step()
    return model, opt


def all_of(model):
    """Copies of parameters and buffers."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in named}


def assert_equal(got, want):
    assert got.keys() == want.keys()
    for name, tensor in want.items():
        assert_same_bits(got[name], tensor, name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_inside_the_parameters_are_the_averages(rng, dtype):
    model, opt = trained(rng, dtype)
    before = all_of(model)
    with opt.averaged(model) as nothing:
        assert nothing is None
        for p in model.parameters():
            assert_same_bits(p.detach(), opt.state[p]["lrfused_average"].to(dtype))
        model(torch.randn(6, 5, generator=rng.torch).to(dtype))  # changes the running statistics
        assert int(model[1].num_batches_tracked) == int(before["1.num_batches_tracked"]) + 1
    assert_equal(all_of(model), before)


def test_buffers_that_were_not_named_are_left_alone(rng):
    model, opt = trained(rng)
    count = int(model[1].num_batches_tracked)
    with opt.averaged():
        model(torch.randn(6, 5, generator=rng.torch))
    assert int(model[1].num_batches_tracked) == count + 1


def test_addresses_stay(rng):
    """Captured graphs read them."""
    model, opt = trained(rng)
    addresses = [p.data_ptr() for p in model.parameters()]
    with opt.averaged():
        assert [p.data_ptr() for p in model.parameters()] == addresses
    assert [p.data_ptr() for p in model.parameters()] == addresses


def test_what_has_no_average_yet_stays_as_it_is(rng):
    """Before the first update; a group that is not averaged."""
    a, b = (torch.nn.Parameter(torch.randn(3, generator=rng.torch)) for _ in "ab")
    opt = lrfused.SGD([{"params": [a], "ema_decay": 0.5}, {"params": [b]}], lr=0.1)
    opt.param_groups[0]["lr"] = 0.2
    with opt.averaged():
        pass
    a.grad = torch.full((3,), torch.inf)
    skipping = lrfused.SGD([a, b], lr=0.1, ema_decay=0.5, nonfinite="skip")
    skipping.step()
    before = [a.detach().clone(), b.detach().clone()]
    with skipping.averaged():
        assert_same_bits(a.detach(), before[0])
        assert_same_bits(b.detach(), before[1])


def test_an_exception_inside_puts_everything_back(rng):
    model, opt = trained(rng)
    before = all_of(model)
    with pytest.raises(ZeroDivisionError), opt.averaged(model):
        model(torch.randn(6, 5, generator=rng.torch))
        raise ZeroDivisionError
    assert_equal(all_of(model), before)
    opt.step()


def test_no_step_inside_and_no_second_one(rng):
    model, opt = trained(rng)
    with opt.averaged():
        inside = all_of(model)
        with pytest.raises(RuntimeError, match="averages"):
            opt.step()
        with pytest.raises(RuntimeError, match="averages"), opt.averaged():
            pass
        with pytest.raises(RuntimeError, match="averages"):
            opt.copy_averages(model, copy.deepcopy(model))
        assert_equal(all_of(model), inside)
    opt.step()


def test_a_copy_made_inside_is_free(rng):
    """It holds the averages as its weights, and steps."""
    model, opt = trained(rng)
    with opt.averaged():
        both = copy.deepcopy((model, opt))
    both[1].step()


def test_a_checkpoint_written_inside_has_the_averages_unchanged(rng):
    _, opt = trained(rng)
    outside = opt.state_dict()
    with opt.averaged():
        inside = opt.state_dict()
    for index, state in outside["state"].items():
        assert_equal(inside["state"][index], state)


def test_an_interrupt_anywhere_puts_everything_back(rng):
    """A keyboard interrupt before each line of the context manager."""
    model, opt = trained(rng)
    before, reached, line = all_of(model), True, 0
    files = ("averages.py", "uninterrupted.py")

    def interrupting(count):
        left = [count]

        def trace(frame, event, _):
            if not frame.f_code.co_filename.endswith(files):
                return None
            if event == "line":
                left[0] -= 1
                if left[0] == 0:
                    raise KeyboardInterrupt
            return trace

        return trace, left

    while reached:
        line += 1
        trace, left = interrupting(line)
        old = sys.gettrace()
        sys.settrace(trace)
        try:
            with opt.averaged(model):
                model[1].num_batches_tracked += 1
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(old)
            torch.set_grad_enabled(True)  # the interrupt may have come before __exit__ was called
        reached = left[0] <= 0
        assert_equal(all_of(model), before)
        with opt.averaged(model):
            pass
    assert line > 20


@pytest.mark.parametrize("inside", [False, True])
def test_without_averages_there_is_an_error(inside):
    model = torch.nn.Linear(2, 2)
    opt = lrfused.AdamW(model.parameters())
    with pytest.raises(ValueError, match="ema_decay"):
        if inside:
            with opt.averaged():
                pass
        opt.copy_averages(model, copy.deepcopy(model))


def test_only_modules_have_buffers(rng):
    model, opt = trained(rng)
    before = all_of(model)
    with pytest.raises(TypeError, match="modules"), opt.averaged(model.parameters()):
        pass
    assert_equal(all_of(model), before)


# Copies


def test_a_copy_has_averages_and_buffers(rng):
    model, opt = trained(rng)
    model[2].bias.requires_grad_(False)
    target = torch.nn.Sequential(
        torch.nn.Linear(5, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1)
    ).double()
    before = all_of(model)
    opt.copy_averages(model, target)
    assert_equal(all_of(model), before)
    for p, other in zip(model.parameters(), target.parameters(), strict=True):
        assert_same_bits(other.detach(), opt.state[p]["lrfused_average"].double())
    for (name, buffer), other in zip(model.named_buffers(), target.buffers(), strict=True):
        assert_same_bits(other, buffer.to(other.dtype), name)


def test_parameters_of_no_optimizer_are_copied(rng):
    model, _ = trained(rng)
    opt = lrfused.SGD(model[0].parameters(), lr=0.1, ema_decay=0.5)
    opt.step()
    target = copy.deepcopy(model)
    with torch.no_grad():
        for p in target.parameters():
            p.fill_(7.0)
    opt.copy_averages(model, target)
    assert_same_bits(target[2].weight.detach(), model[2].weight.detach())


def test_models_that_differ_are_refused(rng):
    model, opt = trained(rng)
    for target in (
        torch.nn.Linear(5, 4),
        torch.nn.Sequential(*model[:2], torch.nn.Linear(4, 2)),
        torch.nn.Sequential(model[0], torch.nn.LayerNorm(4), model[2]),
    ):
        target = copy.deepcopy(target)
        before = all_of(target)
        with pytest.raises(ValueError, match="target"):
            opt.copy_averages(model, target)
        assert_equal(all_of(target), before)

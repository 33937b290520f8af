"""batchnorm.schedule_momentum: copies and pickles of a model have a schedule of their own."""

import copy
import io

import pytest
import torch

import lrfused
from lrfused import batchnorm
from lrfused import schedules as S

from .batchnorm_models import FALLING, batch, network, take_step


def test_a_deep_copy_counts_for_itself(rng):
    model = network()
    batchnorm.schedule_momentum(model, FALLING)
    model(batch(rng))
    copied = copy.deepcopy(model)
    for _ in range(3):
        copied(batch(rng))
    assert copied[1].momentum == FALLING(3)
    assert model[1].momentum == FALLING(0)
    model(batch(rng))
    assert model[1].momentum == FALLING(1)
    batchnorm.schedule_momentum(copied, S.constant(0.125)).remove()
    assert copied[1].momentum == 0.1 and not copied._forward_pre_hooks
    model(batch(rng))
    assert model[1].momentum == FALLING(2)


def test_a_deep_copy_follows_the_same_optimizer(rng):
    """Unless the optimizer is copied first, in the same copy."""
    model = network()
    opt = lrfused.SGD(model.parameters(), lr=0.01)
    batchnorm.schedule_momentum(model, FALLING, opt)
    average = copy.deepcopy(model)
    other_opt, other = copy.deepcopy((opt, model))
    for _ in range(2):
        take_step(model, opt, batch(rng))
    average(batch(rng))
    other(batch(rng))
    assert average[1].momentum == FALLING(2)
    assert other[1].momentum == FALLING(0)
    other_opt.set_step(4)
    other(batch(rng))
    assert other[1].momentum == FALLING(4)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["model first", "handle first"])
def test_a_handle_that_is_copied_with_the_model(rng, order):
    """It is the copy's, in any order."""
    model = network()
    both = (model, batchnorm.schedule_momentum(model, FALLING))
    copied = copy.deepcopy(tuple(both[i] for i in order))
    other, handle = (copied[i] for i in order)
    other(batch(rng))
    other(batch(rng))
    assert handle.step == 2 and other[1].momentum == FALLING(1)
    handle.remove()
    assert other[1].momentum == 0.1 and not other._forward_pre_hooks
    assert model[1].momentum == FALLING(0) and model._forward_pre_hooks


def test_a_pickled_model_goes_on_by_its_forwards(rng):
    """Without the optimizer, which is not saved with the model."""
    model = network()
    opt = lrfused.SGD(model.parameters(), lr=0.01)
    batchnorm.schedule_momentum(model, FALLING, opt)
    for _ in range(3):
        model(batch(rng))
        take_step(model, opt, batch(rng))
    buffer = io.BytesIO()
    torch.save(model, buffer)
    assert b"SGD" not in buffer.getvalue()
    buffer.seek(0)
    again = torch.load(buffer, weights_only=False)
    for t in (3, 4):
        again(batch(rng))
        assert again[1].momentum == FALLING(t)

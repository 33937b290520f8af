"""LambdaLR: groups that share a function share its table, and every value stays torch's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler as torch_lr

from lrfused import schedules as S
from lrfused.schedules.bytecode import Op
from lrfused.schedules.nodes import nodes_in_order

from . import random_schedulers as random
from .stepping import one_a_group, optimizer, stepped

STEPS = 70


def warmup(step):
    return min(1.0, (step + 1) / 10) * max(0.0, 1 - step / 60)


def converted(scheduler, steps=STEPS):
    """A schedule a group; every value is compared with what the scheduler then sets."""
    __tracebackhide__ = True
    groups = len(scheduler.optimizer.param_groups)
    schedules = one_a_group(S.from_torch(scheduler, steps), groups)
    (expected,) = stepped(scheduler, steps + 1, "lr")
    for schedule, column in zip(schedules, expected.T, strict=True):
        assert schedule.values(range(steps + 1)).tobytes() == column.tobytes()
        assert schedule(steps) == schedule(10 * steps) == column[-1]
    return schedules


def tables_of(schedules):
    """The distinct tables, by identity."""
    nodes = nodes_in_order(*schedules)
    return {id(node._payload) for node in nodes if node._kind == Op.TABLE}


def layerwise(groups=6):
    return optimizer(*(1e-3 * 0.9**g for g in range(groups)))


def test_groups_that_differ_by_a_factor_share_a_table():
    schedules = converted(torch_lr.LambdaLR(layerwise(), warmup))
    assert len(set(schedules)) == 6 and len(tables_of(schedules)) == 1
    assert len({id(schedule.program.table) for schedule in schedules}) == 1


@settings(max_examples=30)
@given(
    lrs=st.lists(random.rates, min_size=1, max_size=4),
    values=st.lists(st.floats(0, 1e3) | st.integers(0, 3), min_size=STEPS + 1, max_size=STEPS + 1),
)
def test_random_values_are_exact(lrs, values):
    converted(torch_lr.LambdaLR(optimizer(*lrs), values.__getitem__))


def test_a_function_of_equal_groups_is_one_table_of_the_lr_itself():
    """As before there were shared tables: checkpoints of then have the same schedule."""
    (schedule,) = set(converted(torch_lr.LambdaLR(optimizer(0.3, 0.3), warmup)))
    assert schedule == S.table([0.3 * warmup(step) for step in range(STEPS + 1)])


def test_functions_without_another_base_lr_are_tables_of_the_lr_itself():
    functions = [warmup, warmup, lambda step: 0.9**step]
    schedules = converted(torch_lr.LambdaLR(optimizer(0.3, 0.1, 0.7), functions))
    assert [len(schedule.program.code) for schedule in schedules] == [2, 2, 1]
    assert len(tables_of(schedules)) == 2


def test_equal_values_of_different_functions_share_a_table():
    functions = [lambda step: 0.9**step, lambda step: 0.9**step]
    assert len(tables_of(converted(torch_lr.LambdaLR(optimizer(0.3, 0.1), functions)))) == 1


def test_groups_that_agree_by_their_products_are_one_schedule():
    functions = [warmup, lambda step: 2 * warmup(step)]
    assert len(set(converted(torch_lr.LambdaLR(optimizer(0.2, 0.1), functions)))) == 1


def test_a_shared_function_is_called_once_a_step():
    calls = []
    scheduler = torch_lr.LambdaLR(layerwise(), lambda step: calls.append(step) or warmup(step))
    calls.clear()
    S.from_torch(scheduler, STEPS)
    assert calls == [*range(STEPS + 1), STEPS]  # the last again, to see that it is the same


def test_groups_that_are_all_zero_agree():
    assert len(set(converted(torch_lr.LambdaLR(optimizer(0.2, 0.1), lambda step: 0.0)))) == 1


class Counting:
    """A factor that depends on how often it was called."""

    def __init__(self, late):
        self.calls, self.late = 0, late

    def __call__(self, step):
        self.calls += 1
        return 1 / self.calls if step >= self.late else 1.0


@pytest.mark.parametrize("late", [0, 5, STEPS])
def test_a_shared_function_with_a_state_is_stepped(late):
    converted(torch_lr.LambdaLR(layerwise(), Counting(late)))


@pytest.mark.parametrize("kind", [np.float32, np.float64, torch.tensor, np.int64])
def test_other_numbers_are_multiplied_by_torch_and_numpy(kind):
    """base_lr * np.float32 is a float32: no table of float64 would be exact."""
    converted(torch_lr.LambdaLR(layerwise(), lambda step: kind(warmup(step))))


def test_a_product_that_is_exact_at_first_only():
    """3 * np.float32(1.0) is 3.0, but 3 * np.float32(0.3) is rounded to float32."""
    converted(torch_lr.LambdaLR(optimizer(3.0, 5.0), lambda step: np.float32(1 - step / 100)))


def test_lrs_that_are_tensors_are_stepped():
    lrs = [torch.tensor(0.3), torch.tensor(0.1)]
    schedules = S.from_torch(torch_lr.LambdaLR(optimizer(*lrs, foreach=False), warmup), STEPS)
    assert len(tables_of(schedules)) == 2


def test_products_that_are_not_finite_are_refused():
    scheduler = torch_lr.LambdaLR(optimizer(1.0, 1e10), lambda step: 1e300 if step == 3 else 1.0)
    with pytest.raises(ValueError, match="must be finite, got inf at index 3"):
        S.from_torch(scheduler, 5)


def test_a_division_by_zero_names_the_step():
    scheduler = torch_lr.LambdaLR(layerwise(), lambda step: 1 / (3 - step))
    with pytest.raises(ValueError, match="divides by zero at step 3"):
        S.from_torch(scheduler, 5)

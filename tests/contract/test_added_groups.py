"""Groups that were added and not used yet: whatever befalls the list, their settings hold."""

import copy

import pytest
import torch
from lib.contract import give_gradients, make_parameters, warmup
from lib.optimizers import ADAMW
from torch.nn import Parameter

from lrfused.groups.known_groups import KnownGroups

LR = warmup(0.3)


def grown(kind, n=3):
    """An optimizer to which ``n`` groups with the same schedule were added, and nothing else."""
    opt = kind.ours([Parameter(torch.ones(2))], lr=0.1)
    for _ in range(n):
        opt.add_param_group({"params": [Parameter(torch.ones(2))], "lr": LR, "start_step": 0})
    return opt


def steps(opt, n=1):
    for _ in range(n):
        for group in opt.param_groups:
            for param in group["params"]:
                param.grad = torch.ones_like(param)
        opt.step()


def lrs(opt):
    return [group["lr"] for group in opt.param_groups]


def test_the_first_value_is_mirrored_at_once(kind):
    opt = grown(kind)
    assert lrs(opt) == [0.1, *3 * [LR(0)]]
    steps(opt, 2)
    opt.add_param_group({"params": [Parameter(torch.ones(2))], "lr": LR})
    assert lrs(opt) == [0.1, *4 * [LR(2)]]


EDITS = {
    "nothing": (lambda groups: None, [0, 1, 2, 3]),
    "first removed": (lambda groups: groups.pop(0), [1, 2, 3]),
    "last removed": (lambda groups: groups.pop(), [0, 1, 2]),
    "turned round": (lambda groups: groups.reverse(), [3, 2, 1, 0]),
    "a copy in its place": (lambda groups: groups.__setitem__(2, dict(groups[2])), [0, 1, 2, 3]),
    "another list": (lambda groups: groups.__setitem__(slice(None), groups[::-1]), [3, 2, 1, 0]),
}


@pytest.mark.parametrize("edit, order", EDITS.values(), ids=EDITS)
@pytest.mark.parametrize("then_add", [False, True])
def test_edits_before_the_first_use(kind, edit, order, then_add):
    opt = grown(kind)
    edit(opt.param_groups)
    expected = [0.1 if place == 0 else LR(3) for place in order]
    if then_add:
        opt.add_param_group({"params": [Parameter(torch.ones(2))], "lr": warmup(0.7)})
        expected.append(warmup(0.7)(3))
    steps(opt, 3)
    assert lrs(opt) == expected


def test_values_that_another_optimizer_wrote_before_the_first_use(kind):
    """As ZeroRedundancyOptimizer loads: entry by entry into the groups."""
    first = grown(kind)
    steps(first, 3)
    state, opt = copy.deepcopy(first.state_dict()), grown(kind)
    for group, saved in zip(opt.param_groups, state["param_groups"], strict=True):
        group.update({key: value for key, value in saved.items() if key != "params"})
    steps(opt)
    assert lrs(opt) == [0.1, *3 * [LR(4)]]


def test_a_wrong_group_at_the_end_is_refused_when_another_is_added(kind):
    opt = grown(kind)
    opt.param_groups.append({"params": []})
    with pytest.raises(ValueError, match=r"param_groups\[4\]: has no"):
        opt.add_param_group({"params": [Parameter(torch.ones(2))]})
    assert len(opt.param_groups) == 5


def test_a_copy_of_an_optimizer_that_was_not_used(kind):
    opt = copy.deepcopy(grown(kind))
    opt.add_param_group({"params": [Parameter(torch.ones(2))], "lr": LR})
    steps(opt, 2)
    assert lrs(opt) == [0.1, *4 * [LR(2)]]


def test_added_groups_get_their_rows_together(rng, monkeypatch):
    calls, rows = [], KnownGroups.rows
    monkeypatch.setattr(KnownGroups, "rows", lambda *args: calls.append(args) or rows(*args))
    opt = grown(ADAMW, 20)
    assert not calls
    give_gradients(rng, opt)
    opt.step()
    opt.add_param_group({"params": make_parameters(rng), "lr": LR})
    opt.add_param_group({"params": make_parameters(rng), "lr": LR})
    opt.state_dict()
    assert len(calls) == 2

"""Inputs and Tensor hyperparameters of one name: a value belongs to its group and place."""

import copy

import pytest
import torch
from lib.contract import make_parameters, run, twin
from lib.optimizers import with_betas

from lrfused import schedules


def build(kind, params, first, second):
    """Two groups whose inputs have one name."""
    groups = [
        {"params": params[:2], "lr": 0.1 * schedules.input(first, "gate")},
        {"params": params[2:], "lr": 0.1 * schedules.input(second, "gate")},
    ]
    return kind.ours(groups)


@pytest.mark.parametrize("load_schedules", [False, True])
def test_inputs_of_one_name_get_their_own_values(rng, kind, load_schedules):
    """ "gate" of the first group and "gate" of the second are two numbers in a checkpoint."""
    opt = build(kind, make_parameters(rng), torch.tensor(0.25), torch.tensor(0.5))
    saved = copy.deepcopy(opt.state_dict())
    first, second = torch.tensor(1.0), torch.tensor(2.0)
    other = build(kind, make_parameters(rng), first, second)
    other.load_state_dict(saved, load_schedules)
    assert (float(first), float(second)) == (0.25, 0.5)
    first.fill_(0.75)
    run(rng, 1, other)
    assert other.metrics()["lr"] == [0.1 * 0.75, 0.1 * 0.5]


@with_betas
def test_tensor_hyperparameters_get_their_own_values(rng, kind):
    """A weight_decay that is a Tensor in two groups, and one of the betas in both."""

    def make(params, decays, betas):
        rows = zip((params[:2], params[2:]), decays, betas, strict=True)
        return kind.ours(
            [{"params": ps, "weight_decay": d, "betas": (b, 0.99)} for ps, d, b in rows]
        )

    def tensors(*values):
        return [torch.tensor(value, dtype=torch.float64) for value in values]

    opt = make(make_parameters(rng), tensors(0.25, 0.5), tensors(0.75, 0.875))
    decays, betas = tensors(0.0, 0.0), tensors(0.0, 0.0)
    other = make(make_parameters(rng), decays, betas)
    other.load_state_dict(copy.deepcopy(opt.state_dict()))
    assert [float(x) for x in decays + betas] == [0.25, 0.5, 0.75, 0.875]


def test_one_tensor_in_several_places_gets_one_value(rng, kind):
    """A tensor that both groups read."""
    shared, other_shared = torch.tensor(0.25), torch.tensor(1.0)
    opt = build(kind, make_parameters(rng), shared, shared)
    other = build(kind, twin(p for g in opt.param_groups for p in g["params"]), *[other_shared] * 2)
    other.load_state_dict(copy.deepcopy(opt.state_dict()))
    assert other_shared == 0.25


def test_two_inputs_of_one_name_in_one_schedule_are_refused(rng, kind):
    """No checkpoint could tell them apart: ValueError at construction."""
    first, second = torch.tensor(1.0), torch.tensor(2.0)
    lr = schedules.input(first, "gate") * schedules.input(second, "gate")
    with pytest.raises(ValueError, match="lr: two inputs of the schedule have one name"):
        kind.ours(make_parameters(rng), lr=lr)
    same = schedules.input(first, "gate") * schedules.input(first, "gate")
    kind.ours(make_parameters(rng), lr=same).state_dict()


def test_stored_schedules_find_the_input_of_their_place(rng, kind):
    """load_schedules=True where another schedule stood: the input of the place, else of the group,
    else the only one of its name; two in other groups are not guessed between."""

    def one(params, **options):
        return kind.ours(
            [{"params": params[:1]}, {"params": params[1:2], **options}, {"params": params[2:]}]
        )

    gate = torch.tensor(0.5)
    lr = 0.1 * schedules.input(gate, "gate")
    saved = copy.deepcopy(one(make_parameters(rng), lr=lr).state_dict())
    elsewhere = torch.tensor(0.25)
    decay = schedules.input(elsewhere, "gate")
    other = one(make_parameters(rng), weight_decay=decay)
    with pytest.warns(UserWarning, match="weight_decay of group 1 was the number"):
        other.load_state_dict(saved, load_schedules=True)
    assert elsewhere == 0.5 and other.param_groups[1]["lr"] == 0.1 * 0.5
    nobody = one(make_parameters(rng))
    with pytest.raises(
        ValueError, match=r"schedule of lr of group 1: .*no tensor for input 'gate'"
    ):
        nobody.load_state_dict(saved, load_schedules=True)


def test_a_stored_schedule_reads_the_input_of_its_own_group(rng, kind):
    """The present optimizer has "gate" in every group, but in another place of it."""

    def make(values, **own):
        params, groups = make_parameters(rng), []
        for part, value in zip((params[:2], params[2:]), values, strict=True):
            gate = schedules.input(value, "gate")
            scheduled = {name: factor * gate for name, factor in own.items()}
            groups.append({"params": part, "lr": 0.1, **scheduled})
        return kind.ours(groups)

    opt = make((torch.tensor(0.25), torch.tensor(0.5)), weight_decay=1.0)
    first, second = torch.tensor(1.0), torch.tensor(2.0)
    other = make((first, second), lr=0.5)
    with pytest.warns(UserWarning, match="lr of group 0 was the number"):
        other.load_state_dict(copy.deepcopy(opt.state_dict()), load_schedules=True)
    first.fill_(0.125)
    other.sync_mirrors()
    assert [group["weight_decay"] for group in other.param_groups] == [0.125, 0.5]

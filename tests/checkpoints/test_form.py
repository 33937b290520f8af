"""The form in which it travels: a fixed set of numbers and one string in every group."""

import json
from pathlib import Path

import pytest
import torch
from lib.optimizers import ADAMW, SGD

from lrfused import schedules

from .plain import trained
from .scenarios import loss_scale, scheduled

COUNTERS = {
    "lrfused_step",
    "lrfused_skipped_steps",
    "lrfused_consecutive_skips",
    "lrfused_clipped_steps",
    "lrfused_growth_tracker",
    "lrfused_hysteresis_tracker",
    "lrfused_loss_scale",
}
OPTIONS = {
    "none": lambda kind: {},
    "loss-scale": lambda kind: loss_scale(),
    "schedules": lambda kind: kind.scheduled,
    "products": lambda kind: {**kind.scheduled, **kind.carrying},
    "clips": lambda kind: {"max_grad_norm": 1.0, "clip_value": 0.5, "agc": 0.1},
    "amsgrad": lambda kind: {**kind.widest, "nonfinite": "skip", "accumulation_steps": 2},
}


@pytest.mark.parametrize("make", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("steps", [0, 2])
def test_every_group_has_the_same_keys(rng, kind, make, steps):
    """Whatever the options, before and after the first step, in memory and in state_dict(): a JSON
    string, an int, and float64 tensors of no dimension on the CPU."""
    _, opt = trained(rng, steps, kind=kind, **make(kind))
    theirs = kind.theirs([torch.nn.Parameter(torch.ones(1))])
    for groups in (opt.param_groups, opt.state_dict()["param_groups"]):
        own = {key: groups[0][key] for key in groups[0].keys() - theirs.param_groups[0].keys()}
        assert isinstance(json.loads(own.pop("lrfused")), dict)
        assert type(own.pop("lrfused_group")) is int
        assert set(own) == COUNTERS
        for value in own.values():
            form = (value.dtype, value.dim(), value.device.type)
            assert form == (torch.float64, 0, "cpu")


def test_a_checkpoint_says_what_metrics_say(rng, kind):
    """After skipped and clipped steps the numbers in a checkpoint are those of metrics()."""
    options = {**loss_scale(), "max_grad_norm": 1e-3}
    model, opt = trained(rng, 0, kind=kind, **options)
    for gradient in (1.0, torch.inf, torch.inf, 1.0, 1.0):
        opt.scale(torch.ones(()))
        for param in model.parameters():
            param.grad = torch.full_like(param, gradient)
        opt.step()
    group, metrics = opt.state_dict()["param_groups"][0], opt.metrics()
    names = ("skipped_steps", "consecutive_skips", "clipped_steps", "loss_scale")
    assert {name: float(group[f"lrfused_{name}"]) for name in names} == {
        name: metrics[name] for name in names
    }
    assert float(group["lrfused_step"]) == metrics["steps"] == 3
    assert metrics["skipped_steps"] == 2 and metrics["clipped_steps"] == 3


@pytest.mark.parametrize("bias_correction", ["power", "product"])
def test_products_of_betas_stand_in_the_state(rng, bias_correction):
    """Beside torch's keys only with bias_correction="product": two float64 products and the count
    that they belong to."""
    _, opt = trained(rng, 3, **{**scheduled(), "bias_correction": bias_correction})
    ours = dict.fromkeys(("lrfused_beta1_product", "lrfused_beta2_product"), torch.float64)
    ours["lrfused_count"] = torch.int64
    for state in (*opt.state.values(), *opt.state_dict()["state"].values()):
        found = {key: state[key].dtype for key in state.keys() - {"step", "exp_avg", "exp_avg_sq"}}
        assert found == (ours if bias_correction == "product" else {})
        assert all(state[key].dim() == 0 for key in found)


def test_the_mark_of_a_written_buffer_stands_in_the_state(rng):
    """SGD's beside torch's key, only with dampening: a float64."""
    for dampening in (0.0, 0.5):
        _, opt = trained(rng, 3, kind=SGD, dampening=dampening)
        for state in (*opt.state.values(), *opt.state_dict()["state"].values()):
            mark = {"lrfused_buffer_written"} if dampening else set()
            assert state.keys() == {"momentum_buffer"} | mark
            assert all(state[key].dtype == torch.float64 and state[key] == 1.0 for key in mark)


def text_length(kind, groups: int, lr: object) -> int:
    params = [{"params": [torch.nn.Parameter(torch.ones(1))]} for _ in range(groups)]
    opt = kind.ours(params, lr=lr)
    return sum(len(group["lrfused"]) for group in opt.state_dict()["param_groups"])


def test_a_long_table_stands_once(rng, kind):
    """A sampled schedule that 100 groups share: its table is written once, not 100 times."""
    values = torch.rand(501, generator=rng.torch, dtype=torch.float64).tolist()
    sampled = schedules.from_function(values.__getitem__, 500)
    short = schedules.linear(0.1, 0.2, 500)
    table = text_length(kind, 1, sampled) - text_length(kind, 1, short)
    assert table > 4000
    assert text_length(kind, 100, sampled) - text_length(kind, 100, short) < 2 * table


def test_a_copy_of_the_text_is_no_alias(rng, kind):
    """What a checkpoint holds stays as it was when the optimizer that wrote it goes on."""
    model, opt = trained(rng, 2, kind=kind)
    state = opt.state_dict()
    before = float(state["param_groups"][0]["lrfused_step"])
    for param in model.parameters():
        param.grad = torch.ones_like(param)
    opt.step()
    opt.state_dict()
    assert float(state["param_groups"][0]["lrfused_step"]) == before == 2


def of_recorded(ramp, lr=None):
    """An optimizer with the groups whose texts were recorded, by version 0.1.0 of 2026."""
    groups = [
        {"lr": ramp * 0.5},
        {"lr": ramp * 0.25, "start_step": 2, "clip_value": 0.5},
        {"lr": 1e-3},
    ]
    params = [torch.nn.Parameter(torch.ones(2)) for _ in groups]
    return ADAMW.ours(
        [{**group, "params": [p], **(lr or {})} for group, p in zip(groups, params, strict=True)],
        max_grad_norm=schedules.constant(1.0),
        loss_scale="dynamic",
        bias_correction="product",
    )


RECORDED = json.loads((Path(__file__).parent / "recorded_texts.json").read_text())


def test_texts_are_those_that_were_recorded():
    """A change of the form needs another version, and a reader of this one."""
    ramp = schedules.table([i / 64 for i in range(65)])
    state = of_recorded(ramp).state_dict()
    assert [group["lrfused"] for group in state["param_groups"]] == RECORDED


@pytest.mark.filterwarnings("error")
def test_recorded_texts_load():
    """Without a difference where the settings are the same; else the stored schedules are taken."""
    ramp = schedules.table([i / 64 for i in range(65)])
    state = of_recorded(ramp).state_dict()
    for group, text in zip(state["param_groups"], RECORDED, strict=True):
        group["lrfused"] = text
    same, other = of_recorded(ramp), of_recorded(ramp, {"lr": 0.1})
    same.load_state_dict(state)
    other.load_state_dict(state, load_schedules=True)
    for opt in (same, other):
        opt.set_step(20)
        assert [group["lr"] for group in opt.param_groups] == [10 / 64, 5 / 64, 1e-3]

"""C++ and Python number everything alike; the constructor refuses what makes no sense."""

import math
import re
from pathlib import Path

import pytest
import torch
from lib.runs import needs_cpp

import lrfused
from lrfused import native
from lrfused.schedules.bytecode import Op
from lrfused.settings import options, slots
from lrfused.state.device_state import Field

CORE = Path(__file__).parents[2] / "csrc" / "core"

# Enumeration in C++: (header, enumeration in Python, prefix of the names in C++)
ENUMERATIONS = {
    "Range": ("options.h", slots.Range, "RANGE_"),
    "AgcMode": ("options.h", options.Agc, "AGC_"),
    "ErrorCode": ("options.h", options.Error, "ERROR_"),
    "Field": ("state.h", Field, ""),
    "Op": ("program.h", Op, ""),
}
SIZES = {"RANGES", "FIELDS", "OP_COUNT"}  # the last name of an enumeration that says its length


@pytest.mark.parametrize("name", ENUMERATIONS)
def test_names_and_numbers_of_an_enumeration(name):
    header, enumeration, prefix = ENUMERATIONS[name]
    source = (CORE / header).read_text()
    inside = re.search(rf"enum {name}\b[^{{]*{{(.*?)}}", source, re.DOTALL).group(1)
    names = [word for word in re.findall(r"\w+", inside) if word not in SIZES]
    assert names == [prefix + member.name for member in enumeration]
    assert [member.value for member in enumeration] == list(range(len(enumeration)))


@needs_cpp
def test_the_module_was_built_from_these_enumerations():
    assert len(slots.Range) == native.cpu.RANGES
    assert len(Field) == native.cpu.FIELDS
    assert len(Op) == native.cpu.OP_COUNT
    assert Op.TABLE == native.cpu.TABLE
    assert Field.LOSS_SCALE == native.cpu.LOSS_SCALE


def test_plan_knows_the_first_hyperparameters():
    """Only the optional ones, which no rule has; what the rules have is data."""
    source = (CORE / "options.h").read_text()
    names = re.search(r"enum Slot {(.*?)}", source, re.DOTALL).group(1).split(", ")
    assert [name.strip() for name in names[:-1]] == [slot.name for slot in slots.OPTIONAL]
    assert [int(slot) for slot in slots.OPTIONAL] == list(range(len(slots.OPTIONAL)))


BAD = [
    ({"lr": -1.0}, ValueError, "lr"),
    ({"lr": math.nan}, ValueError, "lr"),
    ({"lr": "fast"}, TypeError, "lr"),
    ({"lr": torch.zeros(2)}, ValueError, r"lr: a Tensor must have one element, got shape \(2,\)"),
    ({"betas": (1.0, 0.9)}, ValueError, r"betas\[0\]: must be less than 1, got 1.0"),
    ({"betas": (0.9, -0.1)}, ValueError, r"betas\[1\]"),
    ({"betas": 0.9}, ValueError, "betas: must be a pair"),
    ({"eps": -1e-8}, ValueError, "eps"),
    ({"weight_decay": math.inf}, ValueError, "weight_decay"),
    ({"max_grad_norm": -1.0}, ValueError, "max_grad_norm"),
    ({"max_grad_norm": math.nan}, ValueError, "max_grad_norm"),
    ({"clip_value": -0.5}, ValueError, "clip_value"),
    ({"agc": "yes"}, TypeError, "agc"),
    ({"norm_type": 1.0}, ValueError, "norm_type: must be 2.0 or inf, got 1.0"),
    ({"agc_by": "row"}, ValueError, "agc_by.*'row'"),
    ({"nonfinite": "ignore"}, ValueError, "nonfinite.*'ignore'"),
    ({"weight_decay_mode": "l2"}, ValueError, "weight_decay_mode.*'l2'"),
    ({"bias_correction": "none"}, ValueError, "bias_correction.*'none'"),
    ({"accumulation_steps": 0}, ValueError, "accumulation_steps"),
    ({"accumulation_steps": 2.5}, (TypeError, ValueError), "accumulation_steps"),
    ({"start_step": -1}, ValueError, "start_step"),
    ({"peak_lr": 0.0}, ValueError, "peak_lr"),
    ({"lr": 0.0, "weight_decay_mode": "lr_ratio"}, ValueError, "lr"),
    ({"lr": torch.tensor(0.1), "weight_decay_mode": "lr_ratio"}, ValueError, "peak_lr"),
    ({"backend": "tpu"}, ValueError, "backend.*'tpu'"),
    ({"differentiable": True}, ValueError, "differentiable"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), BAD, ids=str)
def test_bad_arguments(arguments, error, message):
    parameter = torch.nn.Parameter(torch.zeros(1))
    with pytest.raises(error, match=message):
        lrfused.AdamW([parameter], **arguments)
    of_group = {k: v for k, v in arguments.items() if k in ("clip_value", "agc", "agc_by", "lr")}
    if of_group == arguments:
        with pytest.raises(error, match=message):
            lrfused.AdamW([{"params": [parameter], **arguments}])

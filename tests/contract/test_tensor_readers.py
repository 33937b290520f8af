"""How the walk asks torch where a tensor lies."""

import subprocess
import sys

import pytest
import torch
from lib.contract import assert_same_run, give_gradients, make_parameters, parameters_of, run, twin
from lib.runs import needs_cpp
from torch.nn import Parameter

from lrfused import native
from lrfused.engine import slow_path

pytestmark = needs_cpp


@pytest.fixture
def opt(rng, kind, reader):
    """In the middle of a run, of which the walk asks by each of its ways."""
    opt = kind.ours(make_parameters(rng), backend="cpu", max_grad_norm=1.0)
    run(rng, 2, opt)
    return opt


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_usual_step_is_left_to_the_walk(rng, kind, reader, monkeypatch, dtype):
    """Kept and fresh gradients, one that is left out: no closer look, and the reference's bits."""
    params = make_parameters(rng, dtype)
    ours = kind.ours(params, backend="cpu", max_grad_norm=1.0)
    plain = kind.ours(twin(params), backend="reference", max_grad_norm=1.0)
    run(rng, 2, ours, plain)
    give_gradients(rng, ours, plain)
    plain.step()
    monkeypatch.setattr(slow_path, "check", None)
    ours.step()
    monkeypatch.undo()
    assert_same_run(ours, plain)


def test_swapped_tensors_are_followed(rng, kind, opt):
    """torch.utils.swap_tensors, which refuses tensors that anybody refers to."""
    param = parameters_of(opt)[1]
    old, new = param.detach(), Parameter(torch.randn(13, generator=rng.torch))
    kept, moved = old.clone(), new.detach().clone()
    param.grad = None
    del old
    opt.zero_grad()
    torch.utils.swap_tensors(param, new)
    plain = kind.ours(twin(parameters_of(opt)), backend="cpu", max_grad_norm=1.0)
    plain.load_state_dict(opt.state_dict())
    run(rng, 2, opt, plain)
    assert_same_run(opt, plain)
    assert torch.equal(new, kept) and not torch.equal(param, moved)


def misaligned(values):
    """In memory that begins between two floats."""
    tensor = torch.frombuffer(bytearray(1 + 4 * len(values)), dtype=torch.float32, offset=1)
    return tensor.copy_(values)


NOT_PLAIN = {
    "negative": lambda g: torch._neg_view(-g),
    "strided": lambda g: torch.stack([g, g], 1)[:, 1],
    "misaligned": misaligned,
}


@pytest.mark.parametrize("make", NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_a_gradient_that_cannot_be_used_where_it_lies_is_copied(rng, kind, opt, monkeypatch, make):
    """A sign that was not carried out, strides, a crooked address: by the walk's own word."""
    plain = kind.ours(twin(parameters_of(opt)), backend="reference", max_grad_norm=1.0)
    plain.load_state_dict(opt.state_dict())
    run(rng, 1, opt, plain)
    give_gradients(rng, opt, plain)
    plain.step()
    param = parameters_of(opt)[1]
    param.grad = make(param.grad)
    monkeypatch.setattr(slow_path, "check", None)
    opt.step()
    monkeypatch.undo()
    assert_same_run(opt, plain)


def test_a_sparse_gradient_is_refused_and_nothing_is_printed(rng, opt, capfd):
    """torch's C interface prints what it cannot do: it is not asked."""
    give_gradients(rng, opt)
    parameters_of(opt)[1].grad = torch.zeros(13).to_sparse()
    with pytest.raises(RuntimeError, match="sparse"):
        opt.step()
    assert "aoti" not in "".join(capfd.readouterr())


SPOILED = """
import torch
{spoil}
import lrfused
from lrfused import native
print(native.tensor_readers)
if "data_ptr" in vars(torch.Tensor):  # which everybody else needs
    del torch.Tensor.data_ptr
p = torch.nn.Parameter(torch.ones(3))
opt = lrfused.AdamW([p], backend="cpu")
for _ in range(3):
    p.grad = torch.ones(3)
    opt.step()
print(opt.metrics()["steps"])
"""
DLPACK, STABLE = "DLPack", "stable C interface"
# What another torch might have, and the way that this leaves no trust in.
SPOILS = {
    "another pointer": ("torch.Tensor._cdata = property(lambda x: id(x))", [STABLE]),
    "another capsule": ("torch.Tensor.__dlpack_c_exchange_api__ = 1", [DLPACK]),
    "other addresses": (
        "torch.Tensor.data_ptr = lambda x, true=torch.Tensor.data_ptr: true(x) + 8",
        [DLPACK, STABLE],
    ),
}


@pytest.mark.parametrize(
    ("spoil", "lost"),
    [
        pytest.param(*values, id=name, marks=() if name == "other addresses" else pytest.mark.slow)
        for name, values in SPOILS.items()
    ],
)
def test_a_way_that_cannot_be_proved_is_not_used(spoil, lost):
    """On another torch than it was written for: there the step takes the slow path."""
    command = [sys.executable, "-c", SPOILED.format(spoil=spoil)]
    found, steps = subprocess.check_output(command, text=True).splitlines()
    assert found == str([name for name in native.tensor_readers if name not in lost])
    assert steps == "3"

"""Devices, and optimizers small enough to be only asked which backend steps them."""

import torch
from torch.nn import Parameter

import lrfused

CPU, NVIDIA, INTEL = torch.device("cpu"), torch.device("cuda", 0), torch.device("xpu", 1)
SECOND = torch.device("cuda", 1)


def parameter() -> Parameter:
    p = Parameter(torch.ones(3))
    p.grad = torch.ones(3)
    return p


def backend_of(opt: lrfused.AdamW) -> str:
    """The backend that makes the next step."""
    opt.step()
    return opt._engine.table.backend.name

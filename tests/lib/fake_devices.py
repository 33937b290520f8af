"""Devices that are not there: where parameters pose as lying, and what a late copy would find.

The memory is the CPU's throughout; a step that used what lies elsewhere would read the address 0.
"""

import torch

from lib.runs import Run, advance, assert_same_run, run, start
from lrfused.backends.multi_device import StepTogether, devices_of

LEAD, FIRST, SECOND = torch.device("cpu"), torch.device("cpu", 1), torch.device("cpu", 2)
DEVICES = (LEAD, FIRST, SECOND)


def posed_device_of(entry):
    """Where a test has put the parameter."""
    return getattr(entry.param, "posed", LEAD)


def put(params, devices):
    """Parameters dealt out to devices in turn."""
    for i, param in enumerate(params):
        param.posed = devices[i % len(devices)]


def start_apart(values, backend, devices=DEVICES, **options) -> Run:
    """An optimizer over parameters on several devices before its first step."""
    made = start(values, backend, **options)
    put(made.params, devices)
    return made


def run_apart(problem, backend, devices=DEVICES, **options) -> Run:
    """All steps of a problem."""
    made = start_apart(problem.values, backend, devices, **options)
    for gradients in problem.gradients:
        advance(made, gradients)
    return made


def assert_equal(problem, backend, devices=DEVICES, **options) -> Run:
    """The bits and metrics of the reference; the run is returned."""
    got = run_apart(problem, backend, devices, **options)
    assert_same_run(got, run(problem, **options))
    taking_part = devices_of(got.opt._engine.table.work.entries, LEAD)
    assert isinstance(got.opt._engine.table.run, StepTogether) == (len(taking_part) > 1)
    return got


def fill_with_garbage(together):
    """Everything that a step has to copy from one device to another."""
    lead = together._lead.step
    for peer in together._peers:
        for mirror, _ in peer._mirrors:
            mirror.fill_(torch.nan if mirror.is_floating_point() else -(2**62) - 1)
        lead.measured[:, peer._there] = torch.nan if lead.measured.is_floating_point() else -1
        peer.step.decided.fill_(255 if peer.step.decided.dtype == torch.uint8 else -1)
        peer.step.overflows.zero_()  # of CUDA, which are among what is decided

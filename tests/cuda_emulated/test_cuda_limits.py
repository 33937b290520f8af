"""What the CUDA kernels have room for, and more than that: the bits are the reference's."""

import pytest
import torch
from lib.late_device import LateQueue
from lib.runs import FEW, SMALL, assert_as_reference, assert_same_run, random_problem, run

from lrfused import schedules as S
from lrfused.device.host_to_device import SPARES, Upload

pytestmark = pytest.mark.usefixtures("cuda")


def test_the_same_bits_in_any_order_of_blocks_and_threads(rng, rule, cuda):
    problem = random_problem(rng, [(20000,), (513,), (3, 700)], 2)
    options = {"max_grad_norm": 0.5, "clip_value": 0.3, "agc": 0.1, **rule.largest}
    want = run(problem, **options)
    for _ in range(4):
        cuda.seed(int(rng.numpy.integers(2**63)))
        assert_same_run(run(problem, "cuda", **options), want)


def test_more_tensors_than_the_smaller_kernels_take(rng, cuda):
    """Their parameters have room for less than 4096 bytes."""
    assert cuda.module.parameter_capacity() > 4000
    problem = random_problem(rng, [(2,)] * 515, 1, none=0.4)
    assert_as_reference(problem, "cuda", max_grad_norm=0.1)


def test_more_tensors_than_parameters_of_a_kernel(rng, rule, cuda, monkeypatch):
    """A table of gradients on the device."""
    monkeypatch.setattr(cuda.module, "parameter_capacity", lambda: 3)
    problem = random_problem(rng, SMALL, 5, none=0.4)
    got = assert_as_reference(problem, "cuda", max_grad_norm=0.1)
    assert got.opt._engine.table.run._gradients is not None


def test_a_push_makes_room_for_captures_of_such_tables(rng, cuda, monkeypatch):
    monkeypatch.setattr(cuda.module, "parameter_capacity", lambda: 3)
    got = run(random_problem(rng, SMALL, 1, none=0.0), "cuda")
    table = got.opt._engine.table
    # Emulated, nothing is captured: as on a GPU.
    posed = Upload(len(SMALL), torch.int64, torch.device("cpu"), LateQueue(), fixes=True)
    monkeypatch.setattr(table.run, "_gradients", posed)
    posed._spares.clear()
    got.opt.push()
    assert len(posed._spares) == SPARES


def test_more_groups_programs_and_units_than_threads(rng, rule):
    """Each group with a schedule, each tensor with a count, each unit with a factor of its own."""
    problem = random_problem(rng, [(2,)] * 140 + [(150, 2)], 3, none=0.4)
    groups = tuple(
        {"lr": S.linear(0.1 / (i + 1), 0.01, 5 + i), "start_step": i % 2} for i in range(140)
    )
    assert_as_reference(problem, "cuda", groups=groups, agc=0.05, max_grad_norm=0.1)


def test_more_chunks_than_lanes(rng, rule):
    """The chunks of each thread's second lane, and of a second turn."""
    problem = random_problem(rng, [(1,)] * 600, 1)
    groups = ({"clip_value": 0.5}, {"agc": 0.05})
    assert_as_reference(problem, "cuda", groups=groups, max_grad_norm=0.1)


def long_schedule(rng):
    """As many instructions as a schedule may have, and as many constants as they can take."""
    terms = [S.step * float(x) + float(x) for x in rng.numpy.uniform(1e-6, 1e-5, 64)]
    while len(terms) > 1:
        terms = [x + y for x, y in zip(terms[::2], terms[1::2], strict=True)]
    for i in range(64):
        terms[0] = terms[0] + 1e-6 / (i + 3)
    return terms[0]


def test_programs_of_which_one_fits_in_shared_memory(rng, rule):
    """Beside short ones, in several turns."""
    problem = random_problem(rng, FEW, 3)
    lr, clip = long_schedule(rng), long_schedule(rng)
    assert len(lr.program.code) > 250
    groups = (
        {"clip_value": clip},
        {"weight_decay": S.linear(1e-6, 1e-8, 3)},
        {"lr": S.exp(-S.step)},
    )
    assert_as_reference(problem, "cuda", lr=lr, groups=groups, max_grad_norm=0.1)


def test_tensors_of_equal_inputs_share_a_row_of_scalars(rng):
    """What stands before the decision: rows of tensors for themselves, of 80 bytes, and indices."""
    tensors, indices, decision = 32, 32 * 4, 48
    problem = random_problem(rng, [(3,)] * tensors, 3, none=0.0)
    problem.gradients[1][0] = None  # a count of its own: another row, which nobody else looks for
    step = assert_as_reference(problem, "cuda", groups=({}, {"lr": 0.1})).opt._engine.table.run
    of_one = step.decided[: -indices - decision][-80 * tensors :]
    assert step.decided[: -indices - decision].any() and not of_one.any()

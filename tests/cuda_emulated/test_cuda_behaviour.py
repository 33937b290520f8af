"""The CUDA backend beside its numbers: launches, barriers, errors."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lib.runs import (
    DTYPES,
    FEW,
    SMALL,
    advance,
    assert_same_run,
    random_problem,
    run,
    start,
)

import lrfused
from lrfused import schedules as S
from lrfused.settings.options import Error
from lrfused.state.device_state import Field

INF = float("inf")

pytestmark = pytest.mark.usefixtures("cuda")


# Launches


def blocks(cuda):
    return [launch[0] for launch in cuda.launches()]


@pytest.mark.parametrize(
    ("options", "measures"),
    [
        ({}, False),
        ({"clip_value": 1.0, "lr": S.linear(1e-2, 0, 9)}, False),
        ({"max_grad_norm": 1.0}, True),
        ({"loss_scale": "dynamic"}, True),
        ({"agc": 0.1, "amsgrad": True}, True),
    ],
)
def test_two_launches_a_step_for_any_mixture(rng, cuda, options, measures):
    problem = random_problem(rng, [*SMALL, (9000,)], 3, DTYPES, DTYPES)
    run(problem, "cuda", groups=({}, {"weight_decay": 0.5}), agc_by="tensor", **options)
    filled = sum(value.numel() > 0 for value in problem.values)
    # 9000 elements: three quarters of a chunk, two tiles.
    assert blocks(cuda) == [filled + 2 if measures else 1, filled + 1] * 3


def test_empty_parameters_are_one_launch(rng, cuda):
    made = start([torch.zeros(0, 3)], "cuda", max_grad_norm=1.0)
    advance(made, [torch.zeros(0, 3)])
    assert blocks(cuda) == [1]
    assert made.opt.metrics()["grad_norm"] == 0.0


# Barriers


def test_without_any_one_barrier_the_result_is_wrong(emulation):
    """So the emulation would show a barrier that is missing, and each one is needed."""
    script = Path(__file__).with_name("barriers.py")
    paths = (Path(lrfused.__file__).parents[1], script.parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    command = [sys.executable, str(script), str(emulation.path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    wrong = json.loads(done.stdout)
    assert not wrong.pop("")
    assert len(wrong) == 11
    for place, is_wrong in wrong.items():
        assert is_wrong, f"nothing changes without the barrier at {place}"


def test_a_block_reads_nothing_of_the_state_after_its_ticket(rng, cuda):
    """Plan of the last block moves the step to where a group starts; late warps do not see that."""
    problem = random_problem(rng, [(3,)] * 9, 3, none=0.0)
    groups = ({"start_step": 2}, {"start_step": 1})
    want = run(problem, groups=groups, max_grad_norm=0.1)
    for _ in range(40):
        cuda.seed(int(rng.numpy.integers(2**63)))
        assert_same_run(run(problem, "cuda", groups=groups, max_grad_norm=0.1), want)


# Errors


def test_a_latched_error_stays_until_the_host_has_seen_it(rng):
    """Later steps are taken, and a later error does not replace the first."""
    problem = random_problem(rng, FEW, 1)
    made = start(problem.values, "cuda", nonfinite="raise")
    advance(made, problem.gradients[0])
    table, state = made.opt._engine.table, made.opt._engine.bookkeeping.state([])
    reading = []
    for lr, poison in ((1e-3, INF), (float("nan"), 1.0), (1e-3, 1.0)):
        table.work.hyper.values[0, 0] = lr
        gradient = problem.gradients[0][0] * poison
        table.work.addresses[:, 1] = -1
        table.work.addresses[0] = (gradient.data_ptr(), 1)
        table.run(table.work)
        reading.append(state.read())
    assert [r[Field.ERROR] for r in reading] == [Error.GRADIENT] * 3
    assert [r[Field.ERROR_STEP] for r in reading] == [1, 1, 1]
    assert [r[Field.STEP] for r in reading] == [1, 1, 2]


@pytest.mark.parametrize(
    "call",
    ["cudaGetDevice", "cudaDriverGetVersion", "cudaFuncGetAttributes", "cudaLaunchKernelEx"],
)
def test_an_error_of_cuda_names_the_call(rng, cuda, call):
    problem = random_problem(rng, FEW, 1)
    made = start(problem.values, "cuda", max_grad_norm=1.0)
    cuda.fail(call)
    with pytest.raises(RuntimeError, match=rf"{call}.*: cudaErrorLaunchFailure: unspecified"):
        advance(made, problem.gradients[0])
    cuda.fail()
    advance(made, problem.gradients[0])


# Switches


@pytest.fixture
def configure(cuda):
    yield cuda.module.configure
    cuda.module.configure(True, True)


def test_switches_of_benchmarks(rng, cuda, configure):
    """On at first; carve-outs of both kernels, of two sizes each, are set when they change."""
    problem = random_problem(rng, FEW, 1)

    def settings():
        run(problem, "cuda", max_grad_norm=1.0)
        return cuda.settings()

    settings()
    assert settings() == ["ordered", "dependent"]
    configure(dependent_launch=False)
    assert settings() == ["ordered", "ordered"]
    configure(equal_carveout=False)
    assert settings() == ["carveout -1"] * 4 + ["ordered", "ordered"]
    configure(True)
    assert settings() == ["ordered", "dependent"]
    configure(None, True)  # 8 blocks of 9 KiB, of 228
    assert settings() == ["carveout 32"] * 4 + ["ordered", "dependent"]


# Chips


def test_what_it_was_built_for(cuda):
    assert cuda.module.emulated
    assert cuda.module.architectures() == [90]
    assert cuda.module.supports(9, 0) and cuda.module.supports(10, 0)
    assert not cuda.module.supports(8, 9)


DEFAULT = "7.5:8.0:9.0:10.0:12.0+PTX"
CHIPS = ["7.0", "7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "10.3", "11.0", "12.0", "12.1", "13.0"]
SERVED = {
    DEFAULT: {"7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "10.3", "12.0", "12.1", "13.0"},
    "7.5": {"7.5"},
    "8.6": {"8.6", "8.9"},
    "8.0+PTX": set(CHIPS) - {"7.0", "7.5"},
    "8.0+PTX:12.0": set(CHIPS) - {"7.0", "7.5"},
    "9.0a": {"9.0"},
    "9.0a+PTX": {"9.0"},
    "10.0a:12.0f+PTX": {"10.0", "12.0", "12.1"},
    "10.0f:12.1": {"10.0", "10.3", "12.1"},
}


@pytest.mark.parametrize("chips", SERVED)
def test_which_chips_a_build_serves(cuda, chips):
    """Machine code serves later minor versions, PTX whatever is newer, a and f that or a family."""
    served = {chip for chip in CHIPS if cuda.module.supports(*map(int, chip.split(".")), chips)}
    assert served == SERVED[chips]

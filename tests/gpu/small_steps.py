"""A few steps of every kernel at small sizes: what compute-sanitizer looks at.

    compute-sanitizer --tool memcheck python tests/gpu/small_steps.py cuda triton

Exits with 1 if the bits are not those of the C++ backend, or a backend is not there. With "cpu" it
needs no GPU.
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np  # noqa: E402
from lib import runs  # noqa: E402
from lib.options import DYNAMIC, LR  # noqa: E402
from lib.rules_for_steps import RULES, stepping_by  # noqa: E402

from lrfused.backends.registry import BACKENDS  # noqa: E402

SIZES = [(), (0,), (63,), (5, 13), (513,), (3, 43691)]
CASES = {
    "step": {},
    "measured": {"max_grad_norm": 0.5, "loss_scale": DYNAMIC, "lr": LR},
    "everything": {"agc": 0.05, "clip_value": 0.3, "write_grads": True},
}


def left(device, problem, backend, options):
    """Parameters and state after all steps, on the CPU."""
    there = runs.Problem(
        [value.to(device) for value in problem.values],
        [[g.to(device) for g in gradients] for gradients in problem.gradients],
    )
    made = runs.run(there, backend, **options)
    return {name: tensor.cpu() for name, tensor in runs.contents(made).items()}


def main(backends):
    for backend in backends:
        reason = BACKENDS[backend].why_unavailable()
        if reason:
            sys.exit(f"{backend} is not available: {reason}")
    for rule in RULES.values():
        with stepping_by(rule):
            step_over_all(rule, backends)


def step_over_all(rule, backends):
    """Every case of one optimizer."""
    rng = SimpleNamespace(numpy=np.random.default_rng(0), torch=torch.Generator().manual_seed(0))
    for name in CASES:
        options = {**CASES[name], **(rule.largest if name == "everything" else {})}
        problem = runs.random_problem(rng, SIZES, 2, runs.DTYPES[1:], runs.DTYPES[1:], none=0.0)
        want = left("cpu", problem, "auto", options)
        for backend in backends:
            got = left("cpu" if backend == "cpu" else "cuda", problem, backend, options)
            runs.assert_same_contents(got, want)
            print(f"{backend}: {rule.name}, {name}: same bits")


if __name__ == "__main__":
    main(sys.argv[1:])

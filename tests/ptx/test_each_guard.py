"""Every fence, barrier and way around the first cache in the CUDA kernels is needed.

Each is taken out by the line of the source that it comes from; some run must then find a race, read
what nobody wrote, stand still or end with other bits than the reference.
"""

import itertools
from collections import defaultdict

import pytest
from lib.options import random_options
from lib.runs import DTYPES, assert_same_run, random_problem, run
from lib.weak_memory import run_weak

# By what their PTX says. Of a barrier at which threads vote, and of fences, the callers count, too.
GUARDS = ("membar", "fence", "bar.", "ld.global.cg", "ld.volatile")
BY_CALLER = ("bar.red", "membar")
MOST = 12  # runs with random options before something must have been found

# What takes others' sums together: chunks of a unit, spans of 256 chunks; what takes turns: rows of
# tensors with counts of their own. Without a norm to measure a single block prepares and plans.
SMALL = [(5,), (65,), (3, 7)]
RUNS = {
    "small": (SMALL, {}),
    "plans alone": (SMALL, {"max_grad_norm": None, "agc": None}),
    "a unit of two chunks": ([(66000,), (9,)], {"agc": 0.01}),
    "many rows": ([(1,)] * 40, {"max_grad_norm": 1.0}),
    "two spans": ([(1,)] * 257, {"max_grad_norm": 1.0}),
}
# No result depends on these; benchmarks/results/notes.md has what they are worth.
FOR_SPEED = {"memory.cuh": "what a step reads once need not push other things out of the cache"}


def guards(kernels) -> dict[str, list[int]]:
    """Lines of PTX by what they come from."""
    found = defaultdict(list)
    for library in kernels.libraries:
        text = (library.path.parent / "module.ptx").read_text().splitlines()
        for line, source in library.sources.items():
            kind = next((kind for kind in GUARDS if kind in text[int(line) - 1]), None)
            if kind is not None:
                own = [place for place in source.split(" < ") if ".hpp" not in place]
                depth = 2 if any(way in text[int(line) - 1] for way in BY_CALLER) else 1
                found[f"{kind} {' < '.join(own[:depth])}"].append(int(line))
    return dict(found)


def fails(kernels, rng, lines, shapes, fixed) -> bool:
    """Whether a run without what stands at these lines is found to be wrong."""
    options = {**random_options(rng), **fixed}
    problem = random_problem(rng, shapes, 2, DTYPES, DTYPES, none=0.4)
    seed = int(rng.numpy.integers(2**63))
    try:
        got = run_weak(problem, kernels, "cuda", seed, {"weakened": lines}, **options)
        assert_same_run(got, run(problem, **options))
    except (RuntimeError, AssertionError, pytest.fail.Exception) as e:
        print("WHY", str(e)[:200], [str(x)[:600] for x in kernels.errors])
        kernels.errors.clear()
        return True
    return False


def is_needed(kernels, rng, lines) -> bool:
    for _, (shapes, fixed) in itertools.product(range(MOST), RUNS.values()):
        if fails(kernels, rng, lines, shapes, fixed):
            return True
    return False


def test_each_is_needed(rng, cuda_ptx):
    found = guards(cuda_ptx)
    assert len(found) > 15
    idle = [
        place
        for place, lines in found.items()
        if not any(name in place for name in FOR_SPEED) and not is_needed(cuda_ptx, rng, lines)
    ]
    assert not idle


@pytest.mark.parametrize("name", RUNS)
def test_nothing_is_found_with_all_of_them(rng, cuda_ptx, name):
    assert not fails(cuda_ptx, rng, [], *RUNS[name])

"""Every fence, barrier and way around the first cache in the CUDA kernels is needed.

Each is taken out by the line of the source that it comes from; some run must then find a race, read
what nobody wrote, stand still or end with other bits than the reference.
"""

from collections import defaultdict

import pytest
from lib.options import random_options, two_of_three
from lib.runs import DTYPES, assert_same_run, random_problem, run
from lib.weak_memory import run_weak

from ptx import machine

# By what their PTX says. Of a barrier at which threads vote, and of fences, the callers count, too.
GUARDS = ("membar", "fence", "bar.", "ld.global.cg", "ld.volatile", "griddepcontrol.wait")
BY_CALLER = ("bar.red", "membar")

# What takes others' sums together: chunks of a unit, spans of 256 chunks; what takes turns: rows of
# tensors with counts of their own. Without a norm to measure a single block prepares and plans.
SMALL = [(5,), (65,), (3, 7)]
NOTHING = {"max_grad_norm": None, "agc": None, "nonfinite": "propagate", "loss_scale": None}
RIDERS = {"masks": two_of_three, "ema_decay": 0.5, "groups": ({},), "agc": None}
# The shapes, options that are not random, and how often it is tried to find something.
RUNS = {
    "small": (SMALL, {}, 12),
    "plans alone": (SMALL, {**NOTHING, "groups": ({},)}, 8),
    "many rows": ([(1,)] * 64, {**NOTHING, "groups": ({},), "masks": None}, 6),
    "riders": (SMALL, RIDERS, 20),
    "a unit of two chunks": ([(66000,), (9,)], {"agc": 0.01, "agc_by": "tensor", "masks": None}, 4),
}
# Half a minute each, with the slow tests: what takes sums of spans together.
SPANS = ([(1,)] * 257, {"max_grad_norm": 1.0, "groups": ({},), "masks": None}, 2)
OF_SPANS = ("membar tickets.cuh:18 < tickets.cuh:56", "membar tickets.cuh:20 < tickets.cuh:56")
# No result depends on these; benchmarks/results/notes.md has what they are worth.
FOR_SPEED = {"memory.cuh": "what a step reads once need not push other things out of the cache"}


def guards(kernels) -> dict[str, list[int]]:
    """Lines of PTX by what they come from."""
    found = defaultdict(list)
    for library in kernels.libraries:
        for line, text in library.numbered():
            kind = next((kind for kind in GUARDS if kind in text), None)
            if kind is not None and str(line) in library.sources:
                chain = library.sources[str(line)].split(" < ")
                own = [place for place in chain if ".hpp" not in place]
                depth = 2 if any(way in text for way in BY_CALLER) else 1
                found[f"{kind} {' < '.join(own[:depth])}"].append(line)
    return dict(found)


def own_counts(made) -> None:
    """Every tensor has a count of its own, and so a row of scalars."""
    for i, p in enumerate(made.params):
        if "step" in made.opt.state[p]:
            made.opt.state[p]["step"].fill_(3 + 5 * i)


def fails(kernels, rng, lines, how) -> str:
    """What is wrong with a run without what stands at these lines, if that is found."""
    shapes, fixed, _ = how
    between = own_counts if how is RUNS["many rows"] else None
    options = {**random_options(rng), **fixed}
    problem = random_problem(rng, shapes, 2, DTYPES, DTYPES, none=0.4)
    seed = int(rng.numpy.integers(2**63))
    try:
        want = run(problem, between=between, **options)
        weakened = {"weakened": lines}
        got = run_weak(problem, kernels, "cuda", seed, weakened, between=between, **options)
        assert_same_run(got, want)
    except RuntimeError:  # of the host; what the machine has said is the reason
        (reason, *_) = kernels.errors
        if not isinstance(reason, machine.PtxError):
            raise
        kernels.errors.clear()
        return str(reason)
    except (AssertionError, pytest.fail.Exception):
        return "other bits"
    return ""


def is_needed(kernels, rng, lines) -> bool:
    return any(fails(kernels, rng, lines, how) for how in RUNS.values() for _ in range(how[2]))


def test_each_is_needed(rng, cuda_ptx):
    found = guards(cuda_ptx)
    assert len(found) > 15 and set(OF_SPANS) < set(found)
    exempt = (*FOR_SPEED, *OF_SPANS)
    found = {p: lines for p, lines in found.items() if not any(name in p for name in exempt)}
    assert not [place for place, lines in found.items() if not is_needed(cuda_ptx, rng, lines)]


@pytest.mark.slow
@pytest.mark.parametrize("place", OF_SPANS)
def test_what_takes_spans_together_is_needed(rng, cuda_ptx, place):
    assert not fails(cuda_ptx, rng, [], SPANS)
    lines = guards(cuda_ptx)[place]
    assert any(fails(cuda_ptx, rng, lines, SPANS) for _ in range(SPANS[2]))


@pytest.mark.parametrize("name", RUNS)
def test_nothing_is_found_with_all_of_them(rng, cuda_ptx, name):
    assert not fails(cuda_ptx, rng, [], RUNS[name])

"""What the compiler makes of the kernels, without a GPU: in processes that do not interpret."""

import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from lib.interpreting import interpreted

pytestmark = interpreted  # by no other process than this one

FOLDER = Path(__file__).parent
NVIDIA = {"80": ["float32"], "90": ["float32", "bfloat16", "float64"], "100": ["float32"]}
# The other chips with the slow tests: a chip takes a minute to compile for and to read.
TARGETS = [pytest.param(t, marks=() if t == "90" else pytest.mark.slow) for t in NVIDIA]
CASES = [
    pytest.param(target, name, marks=() if target == "90" else pytest.mark.slow)
    for target, names in NVIDIA.items()
    for name in names
]
SIZES = {"float32": 4, "bfloat16": 2, "float64": 8}
# Of those that are executed for ordinary numbers. DESIGN: about 34 in IEEE float32; the rest are
# addresses and conversions.
PER_ELEMENT = {"float32": 42, "bfloat16": 48}
MEASURED = {"float32": 5.6, "bfloat16": 6.4}  # at most: 64 of a thread in a turn
RESIDENT = 168  # registers of a thread: three programs of measure on a multiprocessor


def process(cache, script, *arguments):
    """The JSON that a script prints."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = cache
    environment["PYTHONPATH"] = os.pathsep.join(map(str, FOLDER.parents[:2]))
    command = [sys.executable, str(FOLDER / script), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@functools.cache
def facts(cache, target):
    return process(cache, "compiling.py", target, *NVIDIA.get(target, ["float32"]))


@pytest.fixture(scope="module")
def cache(request):
    """Triton's, keyed by the sources of the kernels: what did not change is not compiled again."""
    return str(request.config.cache.mkdir("triton"))


@pytest.mark.parametrize("target", TARGETS)
def test_no_spills(cache, target):
    for name, kernel in facts(cache, target).items():
        assert (kernel["stack"], kernel["spills"]) == (0, 0), name


@pytest.mark.parametrize(("target", "name"), CASES)
def test_hot_loops_access_128_bits(cache, target, name):
    (apply,) = facts(cache, target)[f"apply {name}"]["loops"]
    assert apply["narrow_loads"] == apply["narrow_stores"] == 0
    # 128 threads, a tile of 16 bytes of the smallest dtype each, or of 4 elements.
    wide = max(1, 4 * SIZES[name] // 16)
    assert (apply["loads"], apply["stores"]) == (4 * wide, 3 * wide)
    (measure,) = facts(cache, target)[f"measure {name}"]["loops"]
    assert measure["narrow_loads"] == 0
    assert measure["loads"] >= 8 * SIZES[name] // 2  # 8 rows, 8 elements a thread


@pytest.mark.parametrize(("target", "name"), [c for c in CASES if c.values[1] in PER_ELEMENT])
def test_instructions_an_element(cache, target, name):
    (apply,) = facts(cache, target)[f"apply {name}"]["loops"]
    elements = max(4, 16 // SIZES[name])
    assert apply["instructions"] / elements <= PER_ELEMENT[name]
    measure = facts(cache, target)[f"measure {name}"]
    (turn,) = measure["loops"]
    assert measure["registers"] <= RESIDENT
    if target != "80":  # which has no maximum of three
        assert turn["instructions"] / 64 <= MEASURED[name]


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_is_contracted(cache, target):
    """Division and root have FFMA of their own: with contraction there are more."""
    seen = facts(cache, target)
    for name, kernel in seen.items():
        if name != "apply contracted":
            assert not re.search(r"\bfma\.|\.ftz|\.approx|\.full", kernel["ptx"]), name
    plain, contracted = (seen[f"apply {name}"]["loops"][0] for name in ("float32", "contracted"))
    assert plain["ffma"] < contracted["ffma"]


@pytest.mark.parametrize("target", TARGETS)
def test_who_finishes_last_sees_what_the_others_stored(cache, target):
    """Store, barrier, ticket that releases and acquires, barrier, loads.

    That it is enough is seen where the PTX is executed (tests/ptx/test_weak_steps.py).
    """
    ptx = facts(cache, target)["measure float32"]["ptx"]
    functions = re.split(r"^\.(?=visible|func)", ptx, flags=re.M)
    of_span, of_all = (re.split(r"(?=atom\.)", f) for f in functions if "atom." in f)
    for before, after in (of_span, of_all):
        assert re.match(r"atom\.global\.gpu\.acq_rel\.add\.u32", after)
        *_, stored = re.finditer(r"st\.global|call\.uni", before)
        assert before.rindex("bar.sync") > stored.start()
        assert after.index("bar.sync") < re.search(r"ld\.global|call\.uni", after).start()
    assert "call.uni" in of_all[0]  # which sums up a span


def test_an_amd_target(cache):
    seen = facts(cache, "gfx942")
    assert seen["apply float32"] == {"spills": 0, "loads": 4, "stores": 3}
    assert seen["measure float32"]["loads"] >= 16


def test_another_peak_an_override_and_a_resume_compile_nothing(cache, tmp_path):
    """In a new folder, so that every compilation is one."""
    *same_shape, another, misaligned = process(str(tmp_path), "counting.py")
    assert same_shape == [2] * len(same_shape)  # measure with plan, apply
    assert another == 3
    assert misaligned == 3

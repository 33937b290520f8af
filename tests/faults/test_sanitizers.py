"""The C++ backend under the address, undefined-behaviour and thread sanitizers.

tests/native/driver.cpp runs random steps without Python; it also shows that a planted mistake
is seen.
"""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMPILER = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "clang++", "c++")), None)
SOURCES = [
    *(ROOT / "csrc/cpu").glob("[!m]*.cpp"),  # all but module.cpp, which needs Python
    ROOT / "tests/native/driver.cpp",
]
FLAGS = ["-std=c++17", "-O1", "-g1", "-ffp-contract=off", "-fno-sanitize-recover=all"]
OPENMP = ["-fopenmp"] if sys.platform == "linux" else []

# OpenMP's runtime is not instrumented; without it csrc/cpu/threads.h starts threads of its own.
SANITIZERS = {
    "address": ["-fsanitize=address,undefined,float-cast-overflow", *OPENMP],
    "thread": ["-fsanitize=thread"],
}
TRIALS = {"address": 30, "thread": 12}
PLANTED = {
    "address": {"overflow": "heap-buffer-overflow", "misaligned": "misaligned address"},
    "thread": {"race": "data race"},
}


def call(*command: object) -> subprocess.CompletedProcess[str]:
    """Run a command and keep what it says."""
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=600)


def require_sanitizer(folder: Path, flags: list[str]) -> None:
    """Skip where an empty program cannot be built or run with these flags."""
    empty = folder / "empty.cpp"
    empty.write_text("int main() {}")
    built = call(COMPILER, *flags, empty, "-o", folder / "empty")
    ran = call(folder / "empty") if built.returncode == 0 else built
    if ran.returncode != 0:
        pytest.skip(f"{COMPILER} {' '.join(flags)} does not work here: {ran.stderr[-300:]}")


def build(folder: Path, flags: list[str]) -> Path:
    """The driver, two files at a time."""

    def compile_one(source: Path) -> Path:
        target = folder / f"{source.stem}.o"
        built = call(COMPILER, *flags, *FLAGS, f"-I{ROOT / 'csrc'}", "-c", source, "-o", target)
        assert built.returncode == 0, built.stderr
        return target

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, SOURCES))
    linked = call(COMPILER, *flags, *objects, "-o", folder / "driver")
    assert linked.returncode == 0, linked.stderr
    return folder / "driver"


@pytest.mark.slow
@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_sanitizers_report_nothing_over_random_steps(rng, tmp_path, sanitizer):
    """No report over random tables; a planted overflow, odd address or race is reported."""
    flags = SANITIZERS[sanitizer]
    require_sanitizer(tmp_path, flags)
    driver = build(tmp_path, flags)
    for mistake, report in PLANTED[sanitizer].items():
        ran = call(driver, mistake)
        assert ran.returncode != 0 and report in ran.stderr, (mistake, ran)
    seed = rng.numpy.integers(2**31)
    ran = call(driver, seed, TRIALS[sanitizer])
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "ok\n", ""), f"driver {seed}\n{ran}"

"""The tests that there are, by pytest's own list: which backend's kernels each of them runs."""

import functools
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BACKENDS = ("cpu", "triton", "cuda")
PTX = "_ptx"  # behind a backend's name: its kernels' PTX
# Whose tests are in a folder, if their names do not say it.
OWNERS = {"tests/triton/": "triton", "tests/cuda_emulated/": "cuda"}


@dataclass(frozen=True)
class Collected:
    """A collected test: file, name of the function, parts of its parameters' name."""

    file: str
    function: str
    parts: tuple[str, ...]

    @staticmethod
    def of(line: str) -> "Collected":
        file, _, name = line.partition("::")
        function, _, parameters = name.removesuffix("]").partition("[")
        return Collected(file, function, tuple(parameters.split("-")))

    @property
    def backend(self) -> str | None:
        """Whose kernels it runs; None if those of no backend, or no one says whose."""
        names = (*BACKENDS, *(name + PTX for name in BACKENDS))
        named = [name for name in names if name in self.parts]
        owner = next((b for place, b in OWNERS.items() if self.file.startswith(place)), None)
        return named[0] if named else owner


def collected(*places: str) -> list[Collected]:
    """The tests of some folders."""
    found = (Collected.of(line) for line in listing().splitlines() if "::" in line)
    return [test for test in found if test.file.startswith(places)]


@functools.cache
def listing() -> str:
    """The names of all tests, by pytest."""
    options = ["-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "tests"]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *options], cwd=ROOT, env=variables, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"pytest could not collect the tests:\n{done.stdout}{done.stderr}")
    return done.stdout

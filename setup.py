"""Builds the C++ module `lrfused._cpu`. If that fails, the rest is installed with a note of why.

LRFUSED_BUILD=required makes a failed build an error, LRFUSED_BUILD=never leaves the module out.
What is not about the C++ module is in pyproject.toml.
"""

import os
import sys
import textwrap
from pathlib import Path

import pybind11
from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import setup
from setuptools.command.build_ext import build_ext

BUILD = os.environ.get("LRFUSED_BUILD", "optional")
if BUILD not in ("optional", "required", "never"):
    raise SystemExit(f"LRFUSED_BUILD={BUILD!r}: must be optional, required or never")

SOURCES = sorted(str(file) for part in ("cpu", "host") for file in Path("csrc", part).glob("*.cpp"))
HEADERS = sorted(str(file) for file in Path("csrc").rglob("*.*") if file.suffix in (".h", ".inl"))

# Each operation rounds once and by itself, so that every backend gives the same bits: nothing that
# contracts, reorders or flushes may be added here. The two -fno flags change no value.
EXACT = ["-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
OPENMP = ["-fopenmp"] if sys.platform == "linux" else []

CPU = Pybind11Extension(
    "lrfused._cpu",
    SOURCES,
    depends=[*HEADERS, "setup.py"],
    include_dirs=["csrc"],
    cxx_std=17,
    extra_compile_args=["-O3", *EXACT, *OPENMP, "-Wall", "-Wextra"],
    extra_link_args=OPENMP,
)


def is_stale(object_file: str, source: str) -> bool:
    """Whether anything that may have gone into the object file is newer than it."""
    inputs = [source, *HEADERS, "setup.py", pybind11.__file__]
    return max(map(os.path.getmtime, inputs)) >= os.path.getmtime(object_file)


class BuildOrSayWhy(build_ext):
    """Leaves either the module or lrfused/build_failure.txt, never both (a build folder is reused).

    lrfused/native.py reads the note.
    """

    def run(self) -> None:
        inplace = self.inplace  # setuptools clears it while it builds
        reason = None
        try:
            with ParallelCompile(needs_recompile=is_stale):
                super().run()
        except Exception as error:
            if BUILD == "required":
                raise
            reason = textwrap.shorten(f"{type(error).__name__}: {error}", 120)
        self.inplace = inplace

        module = Path(self.get_ext_fullpath(CPU.name))
        note = module.with_name("build_failure.txt")
        if reason is None:
            note.unlink(missing_ok=True)
        else:
            module.unlink(missing_ok=True)
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(
                f"the build failed with {reason}; "
                "installing with LRFUSED_BUILD=required shows the compiler's messages\n"
            )
            self.warn(f"lrfused goes without its C++ module: {reason}")


setup(ext_modules=[] if BUILD == "never" else [CPU], cmdclass={"build_ext": BuildOrSayWhy})

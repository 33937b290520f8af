"""Builds the C++ module `lrfused._cpu`, and `lrfused._cuda` where nvcc is.

A module that cannot be built is left out, with a note of why. LRFUSED_BUILD (_cpu) and LRFUSED_CUDA
(_cuda) say otherwise: `required` makes a failed build an error, `never` leaves the module out; with
LRFUSED_BUILD=never nothing is built. What is not about these modules is in pyproject.toml.
"""

import os
import sys
import textwrap
import time
from pathlib import Path

import pybind11
from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

sys.path.insert(0, str(Path(__file__).parent / "csrc"))
import build_cuda


def choice(variable: str) -> str:
    """What the user wants."""
    chosen = os.environ.get(variable, "optional")
    if chosen not in ("optional", "required", "never"):
        raise SystemExit(f"{variable}={chosen!r}: must be optional, required or never")
    return chosen


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


CUDA = Extension("lrfused._cuda", [str(source) for source, _ in build_cuda.units(Path("csrc"))])
EXTENSIONS = {"LRFUSED_BUILD": CPU, "LRFUSED_CUDA": CUDA}
VARIABLES = {extension.name: variable for variable, extension in EXTENSIONS.items()}
CHOICES = {extension.name: choice(variable) for variable, extension in EXTENSIONS.items()}
NOTES = {CPU.name: "build_failure.txt", CUDA.name: "build_failure_cuda.txt"}


class BuildOrSayWhy(build_ext):
    """Leaves for each module either itself or a note, never both (a build folder is reused).

    lrfused/native.py reads the notes.
    """

    def run(self) -> None:
        self.reasons: dict[str, str] = {}
        inplace = self.inplace  # setuptools clears it while it builds
        for extension in self.extensions:  # what cannot be built any more does not stay
            Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
        super().run()
        self.inplace = inplace
        for extension in self.extensions:
            self.leave_note(extension)

    def build_extension(self, extension: Extension) -> None:
        try:
            if extension is CUDA:
                module = Path(self.get_ext_fullpath(CUDA.name))
                build_cuda.build(module, Path(self.build_temp, "cuda"))
            else:
                start = time.monotonic()
                with ParallelCompile(needs_recompile=is_stale):
                    super().build_extension(extension)
                build_cuda.report(Path(self.get_ext_fullpath(extension.name)), start)
        except Exception as error:
            if CHOICES[extension.name] == "required":
                raise
            self.reasons[extension.name] = describe(error, VARIABLES[extension.name])
            Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)

    def leave_note(self, extension: Extension) -> None:
        module = Path(self.get_ext_fullpath(extension.name))
        note = module.with_name(NOTES[extension.name])
        reason = self.reasons.get(extension.name)
        if reason is None:
            note.unlink(missing_ok=True)
            return
        module.unlink(missing_ok=True)
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(f"{reason}\n")
        self.warn(f"lrfused goes without {extension.name}: {reason}")


def describe(error: Exception, variable: str) -> str:
    """One line, and where there is more to be read."""
    if isinstance(error, build_cuda.Unavailable):
        return str(error)
    line = textwrap.shorten(f"{type(error).__name__}: {error}", 120)
    return (
        f"the build failed with {line}; "
        f"installing with {variable}=required shows the compiler's messages"
    )


wanted = [] if CHOICES[CPU.name] == "never" else [CPU, CUDA]
wanted = [extension for extension in wanted if CHOICES[extension.name] != "never"]
for extension in wanted:
    # Else one that is left out would be missed.
    extension.optional = CHOICES[extension.name] != "required"
setup(license="BSD-3-Clause", ext_modules=wanted, cmdclass={"build_ext": BuildOrSayWhy})

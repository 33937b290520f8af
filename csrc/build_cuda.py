"""Builds `lrfused._cuda` with nvcc and ninja; used by setup.py.

LRFUSED_CUDA_ARCH_LIST, or else TORCH_CUDA_ARCH_LIST, names the architectures in torch's form:
"8.0;9.0+PTX". Without it: those of DEFAULT that this nvcc knows, the last one also as PTX, which
the driver compiles for chips that are newer than all of them. NVCC or CUDA_HOME names the
compiler, else it is the one on PATH. apply.cu is compiled once for each rule, side by side.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path

import pybind11

DEFAULT = ("7.5", "8.0", "9.0", "10.0", "12.0")

# As for the C++ module: each operation rounds once and by itself, nothing is flushed.
EXACT = "-fmad=false -ftz=false -prec-div=true -prec-sqrt=true"
# Constants of the device stand in functions that the host has, too, and does not call here.
QUIET = "-diag-suppress=20091"
HOST = "-fPIC,-fvisibility=hidden,-ffp-contract=off"
NINJA = """
rule compile
  command = $nvcc -c $in -o $out -MD -MF $out.d $flags $define
  depfile = $out.d
  deps = gcc
rule link
  command = $nvcc -shared -cudart static $in -o $out
"""


class Unavailable(Exception):
    """The module cannot be built here; the message says why."""


def build(module: Path, folder: Path) -> None:
    """Compile what has changed, link the module.

    Raises:
        Unavailable: nvcc or ninja is missing.
        ValueError: the list of architectures is not in torch's form.
        subprocess.CalledProcessError: nvcc failed; its messages were shown.
    """
    nvcc, start = find_nvcc(), time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    module.parent.mkdir(parents=True, exist_ok=True)
    (folder / "build.ninja").write_text(rules(nvcc, architectures(nvcc), module, folder))
    jobs = [] if "MAX_JOBS" not in os.environ else ["-j", os.environ["MAX_JOBS"]]
    subprocess.run([*find_ninja(), "-f", str(folder / "build.ninja"), *jobs], check=True)
    report(module, start)


def report(module: Path, start: float) -> None:
    """Print what a module has cost since then."""
    seconds, megabytes = time.monotonic() - start, module.stat().st_size / 1e6
    print(f"{module.name}: {seconds:.0f} s, {megabytes:.1f} MB")


def units(csrc: Path) -> list[tuple[Path, str]]:
    """What is compiled: a source, and the rule for which; an empty text where it is for all."""
    sources = [*sorted((csrc / "cuda").glob("*.cu")), *sorted((csrc / "cuda").glob("*.cpp"))]
    found: list[tuple[Path, str]] = []
    for source in sources:
        of_rules = rule_names(csrc) if source.name == "apply.cu" else [""]
        found += [(source, rule) for rule in of_rules]
    return found


def rule_names(csrc: Path) -> list[str]:
    """The list of rules.h."""
    text = (csrc / "rules" / "rules.h").read_text()
    (names,) = re.findall(r"^using Rules = RuleList<(.*?)>;", text, re.MULTILINE | re.DOTALL)
    return [name.strip() for name in names.split(",")]


def find_nvcc() -> str:
    """The CUDA compiler."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    named = os.environ.get("NVCC") or (home and f"{home}/bin/nvcc")
    candidates = [named] if named else ["nvcc", "/usr/local/cuda/bin/nvcc"]
    for candidate in candidates:
        found = shutil.which(candidate)
        if found:
            return found
    raise Unavailable(f"nvcc was not found ({' or '.join(candidates)})")


def find_ninja() -> list[str]:
    """A command that runs ninja."""
    found = shutil.which("ninja")
    if found:
        return [found]
    if subprocess.run([sys.executable, "-m", "ninja", "--version"], capture_output=True).returncode:
        raise Unavailable("ninja was not found")
    return [sys.executable, "-m", "ninja"]


def architectures(nvcc: str) -> list[str]:
    """Entries of torch's form."""
    names = ("LRFUSED_CUDA_ARCH_LIST", "TORCH_CUDA_ARCH_LIST")
    name = next((name for name in names if os.environ.get(name)), None)
    if name is None:
        output = subprocess.run(
            [nvcc, "--list-gpu-code"], check=True, capture_output=True, text=True
        )
        known = [
            entry for entry in DEFAULT if f"sm_{entry.replace('.', '')}" in output.stdout.split()
        ]
        if not known:
            raise Unavailable(f"this nvcc knows none of the architectures {', '.join(DEFAULT)}")
        return [*known[:-1], f"{known[-1]}+PTX"]
    entries = os.environ[name].replace(";", " ").split()
    for entry in entries:
        if not re.fullmatch(r"\d+\.\d[a-f]?(\+PTX)?", entry):
            raise ValueError(f"{name}: an entry must be like 9.0 or 9.0+PTX, got {entry!r}")
    return entries


def gencode(entries: Sequence[str]) -> list[str]:
    """nvcc's options for these architectures."""
    flags = []
    for entry in entries:
        number = entry.removesuffix("+PTX").replace(".", "")
        flags.append(f"-gencode=arch=compute_{number},code=sm_{number}")
        if entry.endswith("+PTX"):
            flags.append(f"-gencode=arch=compute_{number},code=compute_{number}")
    return flags


def rules(nvcc: str, entries: Sequence[str], module: Path, folder: Path) -> str:
    """What ninja is to do."""
    includes = ["csrc", pybind11.get_include(), sysconfig.get_paths()["include"]]
    flags = ["-O3", "-std=c++17", EXACT, QUIET, f"-Xcompiler={HOST}", *gencode(entries)]
    flags.append(f"-DLRF_CUDA_CHIPS='\"{':'.join(entries)}\"'")
    flags += [f"-I{_escaped(path)}" for path in includes]
    names = {"builddir": _escaped(folder), "nvcc": _escaped(nvcc), "flags": " ".join(flags)}
    lines = [*(f"{name} = {value}" for name, value in names.items()), NINJA]
    objects = []
    for source, rule in units(Path("csrc")):
        objects.append(_escaped(folder / f"{source.name}{rule}.o"))
        lines.append(f"build {objects[-1]}: compile {_escaped(source)}")
        lines += [f"  define = -DLRF_RULE={rule}"] if rule else []
    lines.append(f"build {_escaped(module)}: link {' '.join(objects)}")
    return "\n".join(lines) + "\n"


def _escaped(path: str | Path) -> str:
    return re.sub(r"([$ :])", r"$\1", str(path))

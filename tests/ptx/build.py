"""PTX of the kernels, and shared libraries of what is translated; both kept by their content.

There is one cache, outside the tree: $XDG_CACHE_HOME/lrfused-ptx. What nobody has used for a week
is removed when something new comes.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from types import ModuleType

from lib.emulation_build import COMPILER, CSRC, EXACT

from ptx.grammar import parse
from ptx.translate import translate

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lrfused-ptx"
WEEK = 7 * 24 * 3600
FLAGS = ["-O1", "-std=c++17", "-fwrapv", "-fPIC", "-fvisibility=hidden", "-w", *EXACT]
MACHINE = [HERE / name for name in ("machine.h", "values.h")]  # what translated code includes
RUNTIME = [HERE / name for name in ("machine.cpp", "grid.h", "memory_model.h", "races.h")]
RUNTIME += [*MACHINE, HERE.parent / "cuda_emulated" / "fiber.h"]
TRANSLATOR = [HERE / name for name in ("grammar.py", "opcodes.py", "statements.py", "translate.py")]


def key(*parts: object) -> str:
    """Of texts and files."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part.read_bytes() if isinstance(part, Path) else repr(part).encode())
    return found.hexdigest()[:24]


@cache
def _compiler() -> str:
    """Which it is: another makes something else of the same."""
    return subprocess.run([COMPILER, "--version"], capture_output=True, text=True).stdout


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Whoever comes first makes what is missing, others wait for that."""
    with contextlib.ExitStack() as held:
        while True:
            # Somebody may remove the folder, with the lock, until that is held.
            with contextlib.suppress(FileNotFoundError):
                folder.mkdir(parents=True, exist_ok=True)
                lock = held.enter_context((folder / "lock").open("a"))
                fcntl.flock(lock, fcntl.LOCK_EX)
                if os.path.samestat(os.fstat(lock.fileno()), (folder / "lock").stat()):
                    break
        yield


def kept(key: str, name: str, make: Callable[[Path], None]) -> Path:
    """The file of that name in a folder of the cache, made if it is missing."""
    folder = CACHE / key
    with _locked(folder):
        target = folder / name
        if not target.exists():
            _clean()
            make(folder)
        os.utime(folder)
    return target


def _clean() -> None:
    """Remove what is old and nobody's just now."""
    for folder in CACHE.iterdir():
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            if time.time() - folder.stat().st_mtime <= WEEK:
                continue
            with (folder / "lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - folder.stat().st_mtime > WEEK:
                    # Whole or not at all: half of one would be taken for one.
                    shutil.rmtree(folder.rename(folder.with_name(f"{folder.name}.{os.getpid()}")))


def run(command: Sequence[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))[:400]}\n{done.stderr[:4000]}")


def _build_cuda() -> ModuleType:
    """That of csrc."""
    sys.path.insert(0, str(CSRC))
    import build_cuda

    return build_cuda


def has_nvcc() -> bool:
    """Whether there is a compiler of CUDA."""
    build_cuda = _build_cuda()
    try:
        build_cuda.find_nvcc()
    except build_cuda.Unavailable:
        return False
    return True


def cuda_ptx(architecture: str) -> list[Path]:
    """What nvcc makes of each unit of csrc/cuda that has kernels, for one architecture."""
    build_cuda = _build_cuda()
    nvcc = build_cuda.find_nvcc()
    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
    flags = ["-O3", "-std=c++17", *build_cuda.EXACT.split(), *build_cuda.QUIET.split()]
    flags += ["-lineinfo", '-DLRF_CUDA_CHIPS=""']  # the lines of the sources
    units = [unit for unit in build_cuda.units(CSRC) if unit[0].suffix == ".cu"]
    sources = sorted(f for f in CSRC.rglob("*") if f.suffix in (".h", ".cuh", ".cu"))
    name = key("ptx", version, architecture, flags, *map(str, units), *sources)

    def make(folder: Path) -> None:
        def compiled(unit: tuple[Path, str]) -> None:
            source, rule = unit
            define = [f"-DLRF_RULE={rule}"] if rule else []
            includes = [f"-I{CSRC}", f"-I{sysconfig.get_paths()['include']}"]
            target = folder / f"{source.stem}{rule}.ptx"
            arch = f"-arch=compute_{architecture}"
            run([nvcc, "-ptx", arch, *flags, *includes, *define, str(source), "-o", target])

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(compiled, units))
        (folder / "all").touch()

    folder = kept(name, "all", make).parent
    return [folder / f"{source.stem}{rule}.ptx" for source, rule in units]


def machine() -> Path:
    """The library that runs what is translated."""
    # Nobody may throw through a fiber: its frames are no caller's.
    command = [COMPILER, *FLAGS, "-O2", "-shared", str(RUNTIME[0])]
    return kept(
        key("machine", _compiler(), command, *RUNTIME),
        "machine.so",
        lambda folder: _compile([*command, "-o"], folder / "machine.so"),
    )


def library(ptx: str) -> Path:
    """A module of PTX as a shared library, with a JSON file beside it."""
    name = key("library", ptx, _compiler(), FLAGS, *MACHINE, *TRANSLATOR)

    def make(folder: Path) -> None:
        found = translate(parse(ptx))
        (folder / "module.ptx").write_text(ptx)
        (folder / "module.cpp").write_text(found.cpp)
        facts = {
            "counters": found.counters,
            "parameters": found.parameter_sizes,
            "shared": found.shared_size,
            "sources": found.sources,
            "places": found.places,
        }
        (folder / "module.json").write_text(json.dumps(facts))
        command = [COMPILER, *FLAGS, f"-I{HERE}", "-shared", str(folder / "module.cpp"), "-o"]
        _compile(command, folder / "module.so")

    return kept(name, "module.so", make)


def write(target: Path, text: str) -> None:
    """A file that is whole as soon as it is there."""
    unfinished = target.with_suffix(".unfinished")
    unfinished.write_text(text)
    unfinished.rename(target)


def _compile(command: list[str], target: Path) -> None:
    unfinished = target.with_suffix(".unfinished")
    run([*command, str(unfinished)])
    unfinished.rename(target)

"""Compiles csrc/cuda with g++ against the cuda_runtime.h of cuda_emulated/, once for a content."""

import ctypes
import hashlib
import importlib.util
import shlex
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).parents[1] / "cuda_emulated"
CSRC = HERE.parents[1] / "csrc"
# As the real compilers are told to: every operation rounds once and by itself.
EXACT = ["-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
# Kernels are found by their names, and no variable is another module's.
FLAGS = ["-O1", "-std=c++17", "-fPIC", "-fno-gnu-unique", "-U_FORTIFY_SOURCE", "-w", *EXACT]
COMPILER = shlex.split(sysconfig.get_config_var("CXX") or "c++")[0]


def _why_not() -> str | None:
    if sys.platform != "linux":
        return "fibers and named sections as Linux has them"
    if shutil.which(COMPILER) is None:
        return f"no C++ compiler ({COMPILER})"
    if importlib.util.find_spec("pybind11") is None:
        return "pybind11 is not installed"
    return None


WHY_NOT = _why_not()
# (name, parameters, their size, blocks, threads, whether it may begin early) -> whether it was well
MACHINE = ctypes.CFUNCTYPE(
    *(ctypes.c_bool, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_uint64),
    *(ctypes.c_uint, ctypes.c_uint, ctypes.c_bool),
)


def _key(flags: list[str]) -> str:
    import pybind11

    contents = hashlib.sha256(repr((flags, sys.version, pybind11.__version__)).encode())
    folders = [*(CSRC / part for part in ("core", "rules", "host", "cuda")), HERE]
    for file in sorted(file for folder in folders for file in folder.iterdir()):
        if file.suffix in (".h", ".cuh", ".cu", ".cpp"):
            contents.update(f"{file.name}\0".encode() + file.read_bytes())
    return contents.hexdigest()[:16]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)}\n{done.stderr}")


def _compile(folder: Path, target: Path, flags: list[str]) -> None:
    sys.path.insert(0, str(CSRC))
    import build_cuda
    import pybind11

    places = [HERE, CSRC, pybind11.get_include(), sysconfig.get_path("include")]
    includes = [f"-I{path}" for path in places]

    def compiled(unit: tuple[Path, str]) -> str:
        source, rule = unit
        define = [f"-DLRF_RULE={rule}"] if rule else []
        built = str(folder / f"{source.stem}{rule}-{source.suffix[1:]}.o")
        _run([COMPILER, *flags, *define, *includes, "-x", "c++", "-c", str(source), "-o", built])
        return built

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compiled, [*build_cuda.units(CSRC), (HERE / "controls.cpp", "")]))
    unfinished = target.with_suffix(".unfinished")
    _run([COMPILER, "-shared", *objects, "-ldl", "-o", str(unfinished)])
    unfinished.rename(target)


def build(cache: Path, *more: str) -> Path:
    """The module's path, with more flags; whoever comes first compiles, others wait for that."""
    import fcntl  # not on every system, while this file is imported on all

    flags = [*FLAGS, *more]
    folder = cache / _key(flags)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"_cuda{sysconfig.get_config_var('EXT_SUFFIX')}"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            _compile(folder, target, flags)
    return target


def load(path: Path) -> ModuleType:
    """The module at a path; pybind11 would give another of its name, if there is one, instead."""
    spec = importlib.util.spec_from_file_location("cuda_emulated._cuda", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Emulation:
    """The module, and what tests ask of it."""

    def __init__(self, path):
        self.path, self.module = path, load(path)
        self._library = ctypes.CDLL(str(path))
        for name in ("launches", "settings", "barriers"):
            getattr(self._library, name).restype = ctypes.c_char_p

    def seed(self, number):
        """The order of blocks and threads from here on."""
        self._library.seed(ctypes.c_uint64(number))

    def launches(self):
        """(blocks, threads) of every launch since this was last asked."""
        lines = self._library.launches().decode().splitlines()
        return [tuple(map(int, line.split(" x "))) for line in lines]

    def settings(self):
        """What was asked of launches ("dependent" or "ordered") and kernels, since then."""
        return self._library.settings().decode().splitlines()

    def barriers(self):
        """The places of the barriers that were reached so far."""
        return self._library.barriers().decode().splitlines()

    def drop_barrier(self, place=""):
        """Nobody waits there any more."""
        self._library.drop_barrier(place.encode())

    def run_on(self, machine=None):
        """What runs kernels in place of the emulation: a function of their names; see tests/ptx."""
        self._machine = MACHINE(machine) if machine else MACHINE()  # kept alive
        self._library.run_on(self._machine)

    def fail(self, call=""):
        """This call of CUDA's fails from now on."""
        self._library.fail(call.encode())

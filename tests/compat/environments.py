"""For each stack an environment of its own and a copy of the tree in which the modules are built.

Both are kept between runs, outside the tree, in the folder COMPAT_HOME.
"""

import filecmp
import os
import shutil
import subprocess
import sys
from pathlib import Path

from compat.process import Done, run
from compat.stacks import Stack

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
HOME = Path(os.environ.get("COMPAT_HOME") or CACHE / "lrfused" / "compat")
# What a bare machine with a GPU has besides torch, Triton and numpy.
TOOLS = ["pytest", "pytest-xdist", "pytest-timeout", "hypothesis", "mpmath", "tqdm"]
TOOLS += ["ninja", "pybind11", "setuptools<82", "wheel"]
INSTALL_SECONDS, BUILD_SECONDS = 3600, 1200
INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "CUDA_HOME", "NVCC", "MAX_JOBS")


class Unavailable(Exception):
    """A stack cannot be had on this machine; the message says why."""


def folder(stack: Stack) -> Path:
    """What belongs to a stack."""
    return HOME / stack.name


def python(stack: Stack) -> Path:
    """Its Python."""
    return Path(sys.executable) if stack.is_pinned else folder(stack) / "bin" / "python"


def tree(stack: Stack) -> Path:
    """Its copy of the tree, where lrfused is imported from: it is not installed."""
    return folder(stack) / "tree"


def log(stack: Stack) -> Path:
    """Everything that its processes print."""
    return folder(stack) / "compat.log"


def variables(stack: Stack, **more: str) -> dict[str, str]:
    """The environment of its processes: little of this one's gets in."""
    mine = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return {**mine, "PYTHONPATH": str(tree(stack)), "PYTHONNOUSERSITE": "1", **more}


def run_in(stack: Stack, command: list[str], seconds: float, **more: str) -> Done:
    """A command in its tree."""
    return run(command, tree(stack), seconds, log(stack), variables(stack, **more))


def prepare(stack: Stack) -> None:
    """Install what is missing, copy what has changed, build.

    Raises:
        Unavailable: the stack cannot be installed, or the modules cannot be built.
    """
    folder(stack).mkdir(parents=True, exist_ok=True)
    if not stack.is_pinned:
        _install(stack)
    copy_tree(tree(stack))
    build = [str(python(stack)), "setup.py", "build_ext", "--inplace"]
    done = run_in(stack, build, BUILD_SECONDS, LRFUSED_BUILD="required", LRFUSED_CUDA="never")
    if done.status != 0:
        raise Unavailable(f"the build failed: {_last_line(done)}")


def _install(stack: Stack) -> None:
    wanted = [f"torch=={stack.torch}", f"triton=={stack.triton}", f"numpy=={stack.numpy}", *TOOLS]
    stamp = folder(stack) / "installed.txt"
    if stamp.exists() and stamp.read_text().split() == wanted:
        return
    made = [str(find_python(stack.python)), "-m", "venv", str(folder(stack))]
    pip = [str(python(stack)), "-m", "pip", "install", "--no-compile", *wanted]
    for command in (made, pip):
        mine = {**os.environ, "PYTHONPATH": ""}
        done = run(command, folder(stack), INSTALL_SECONDS, log(stack), mine)
        if done.status != 0:
            raise Unavailable(f"it cannot be installed: {_last_line(done)}")
    stamp.write_text("\n".join(wanted))


def triton_wheel(version: str) -> Path:
    """A folder with that Triton and nothing else, for PYTHONPATH.

    Raises:
        Unavailable: it cannot be installed for this Python.
    """
    place = HOME / f"triton{version}-python{sys.version_info[0]}.{sys.version_info[1]}"
    if (place / "triton" / "__init__.py").exists():
        return place
    HOME.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(f"{place.name}.partial")
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-compile", "--upgrade"]
    command = [*pip, "--target", str(partial), f"triton=={version}"]
    done = run(command, HOME, INSTALL_SECONDS, HOME / "wheels.log", os.environ)
    if done.status != 0:
        raise Unavailable(f"Triton {version} cannot be installed: {_last_line(done)}")
    partial.rename(place)
    return place


def find_python(version: str) -> Path:
    """The interpreter of that name, where it runs: on PATH, or among pyenv's.

    Raises:
        Unavailable: there is none.
    """
    named = shutil.which(f"python{version}")
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for candidate in ([Path(named)] if named else []) + sorted(
        pyenv.glob(f"{version}.*/bin/python")
    ):
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        found = subprocess.run([candidate, "-c", code], capture_output=True, text=True)
        if found.stdout.strip() == version:
            return candidate
    raise Unavailable(f"there is no python{version}")


def copy_tree(target: Path) -> None:
    """The files of this tree that git has or would add; what was built beside them stays there."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    output = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True).stdout
    names = {name for name in output.decode().split("\0") if name and (ROOT / name).is_file()}
    for name in names:
        source, copy = ROOT / name, target / name
        if copy.exists() and filecmp.cmp(source, copy, shallow=False):
            continue  # its old date tells the build that it need not be compiled again
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, copy)
    listing = target / ".copied"
    before = set(listing.read_text().split("\0")) if listing.exists() else set()
    for name in before - names:
        (target / name).unlink(missing_ok=True)
    listing.write_text("\0".join(sorted(names)))


def _last_line(done: Done) -> str:
    if done.status is None:
        return f"not done after {done.seconds:.0f} s"
    lines = [line for line in done.output.splitlines() if line.strip()]
    return lines[-1][:200] if lines else f"exit status {done.status}"

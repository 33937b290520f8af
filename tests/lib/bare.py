"""A bare copy of the tree, as a machine has it that knows nothing of lrfused.

    python tests/lib/bare.py FOLDER [PYTHON]

Makes FOLDER/tree from a tar of the files that belong to the repository (no .git, nothing built),
and FOLDER/venv: PYTHON with all its packages but lrfused, which cannot be imported there. Prints
the tree and the new Python: `cd TREE && make gpu PYTHON=... ARGS=--dry-run` rehearses there.
"""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLACES = "import sysconfig as s; print(s.get_path('purelib'), s.get_path('platlib'), sep='\\n')"


def make(folder: Path, python: str = sys.executable) -> tuple[Path, Path]:
    """The tree and the Python.

    Raises:
        RuntimeError: lrfused could be imported by it nevertheless.
    """
    tree, venv = folder / "tree", folder / "venv"
    with tarfile.open(fileobj=io.BytesIO(packed())) as tar:
        tar.extractall(tree, filter="data")
    subprocess.run([python, "-m", "venv", "--without-pip", str(venv)], check=True)
    bare = venv / "bin" / "python"
    # On the path, those packages are seen, but not what their own .pth files would add: lrfused is
    # installed by one.
    places = dict.fromkeys(_output(python, "-c", PLACES).split("\n"))
    (Path(_output(str(bare), "-c", PLACES).split("\n")[0]) / "packages.pth").write_text(
        "".join(f"{place}\n" for place in places)
    )
    looks = "import importlib.util as u; print(u.find_spec('lrfused'))"
    found = subprocess.run(
        [bare, "-c", looks], cwd=folder, env=environment(), capture_output=True, text=True
    )
    if found.stdout.strip() != "None":
        raise RuntimeError(f"lrfused can be imported in {venv}: {found.stdout}{found.stderr}")
    return tree, bare


def packed() -> bytes:
    """A tar of all files that git knows, or would if it were asked to; as they are now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w") as tar:
        for name in sorted(set(os.fsdecode(listed.stdout).split("\0")) - {""}):
            if (ROOT / name).exists():
                tar.add(ROOT / name, name)
    return memory.getvalue()


def environment() -> dict[str, str]:
    """This process's, without what leads to packages elsewhere."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if name not in hidden}


def _output(*command: str) -> str:
    done = subprocess.run(command, env=environment(), check=True, capture_output=True, text=True)
    return done.stdout.strip()


if __name__ == "__main__":
    print(*make(Path(sys.argv[1]).resolve(), *sys.argv[2:3]), sep="\n")

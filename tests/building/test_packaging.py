"""Installing with and without a compiler, wheel and sdist, and what an import does."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from . import stubs

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
FROM_HERE = ["--no-build-isolation", "--no-deps", "--no-index"]

COMPILER = os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "c++"
NO_COMPILER = {
    "missing": {"CC": "/nonexistent/cc", "CXX": "/nonexistent/c++"},
    "failing": {"CC": "false", "CXX": "false"},
    "not on PATH": {"PATH": "/nonexistent"},
}
LISTS = {"instruction_sets": 'Py_BuildValue("[s]", "a stub")'}
LISTS["tensor_readers"] = 'Py_BuildValue("[]")'


def run(*command: str | Path, cwd: Path, ok: bool = True, **variables: str) -> str:
    """Runs a command with only those variables of ours that are given here; its whole output.

    The CUDA module is left out unless they say otherwise: it takes minutes.
    """
    environment = {k: v for k, v in os.environ.items() if k not in ("LRFUSED_BUILD", "PYTHONPATH")}
    environment["LRFUSED_CUDA"] = "never"
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=environment | variables,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert (done.returncode == 0) == ok, done.stdout
    return done.stdout


def info_of(folder: Path, cwd: Path) -> str:
    """What the lrfused in `folder` says of itself."""
    code = "import lrfused; print(lrfused.__file__); print(lrfused.info())"
    file, text = run(sys.executable, "-c", code, cwd=cwd, PYTHONPATH=str(folder)).split("\n", 1)
    assert Path(file).is_relative_to(folder)
    return text


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The files of this checkout, without what was built there."""
    built = (".git", ".venv", ".*_cache", ".hypothesis", "build", "dist", "demo", "*.egg-info")
    ignored = shutil.ignore_patterns(*built, "__pycache__", "*.so", "build_failure*.txt")
    return shutil.copytree(ROOT, tmp_path / "source", ignore=ignored)


@pytest.fixture
def stub(source: Path) -> Path:
    """The same with a C++ module that compiles in no time, being without pybind11."""
    for part in ("cpu", "host"):
        for file in (source / "csrc" / part).glob("*.cpp"):
            file.unlink()
    (source / "csrc" / "cpu" / "module.cpp").write_text(stubs.module("_cpu", LISTS))
    return source


def make_sdist(source: Path, made: Path) -> Path:
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "-o", made, cwd=source)
    (sdist,) = made.glob("*.tar.gz")
    return sdist


def files_of(source: Path, *folders: str) -> set[str]:
    """All of them below these folders, as an archive names them."""
    files = (file for folder in folders for file in (source / folder).rglob("*") if file.is_file())
    return {file.relative_to(source).as_posix() for file in files}


def test_sdist_is_complete(source: Path, tmp_path: Path) -> None:
    with tarfile.open(make_sdist(source, tmp_path / "made")) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert {"setup.py", "pyproject.toml", "Makefile", "constraints.txt", "LICENSE"} <= packed
    assert files_of(source, "lrfused", "csrc", "tests") <= packed


@pytest.mark.parametrize("code", ["stub", pytest.param("source", marks=pytest.mark.slow)])
def test_wheel_of_an_sdist_works(request: pytest.FixtureRequest, tmp_path: Path, code: str) -> None:
    """With all of the C++, which takes a compiler half a minute, it is slow."""
    source: Path = request.getfixturevalue(code)
    made = tmp_path / "made"
    sdist = make_sdist(source, made)
    # The compiler does not optimize: that takes most of the time and shows nothing here.
    quick = tmp_path / "c++"
    quick.write_text(f'#!/bin/sh\nexec {COMPILER} "$@" -O0 -g0\n')
    quick.chmod(0o755)
    variables = {"CC": str(quick), "CXX": str(quick), "LRFUSED_BUILD": "required"}
    run(*PIP, "wheel", *FROM_HERE, "-w", made, sdist, cwd=tmp_path, **variables)
    (wheel,) = made.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    package = files_of(source, "lrfused")
    extra = {name for name in names if ".dist-info/" not in name} - package
    assert package <= set(names)
    assert [Path(name).name.split(".")[0] for name in extra] == ["_cpu"]

    (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
    described = zipfile.ZipFile(wheel).read(metadata).decode()
    assert re.search(r"^License(-Expression)?: BSD-3-Clause$", described, re.MULTILINE)
    assert any(name.endswith("/LICENSE") for name in names)

    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    says = "cpu        yes: a stub" if code == "stub" else "cpu        yes"
    assert says in info_of(tmp_path / "installed", tmp_path)


def test_the_project_is_described_in_words_that_old_and_new_setuptools_take() -> None:
    """65.5 refuses a licence that is a string, and license-files; tables are refused from 2027."""
    described = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project, (setuptools, *_) = described["project"], described["build-system"]["requires"]
    assert not {"license", "license-files"} & set(project)
    assert "license" in project["dynamic"]
    assert setuptools == "setuptools>=65.5"


@pytest.mark.parametrize(
    "variables",
    [
        pytest.param(variables, id=name, marks=pytest.mark.slow if name == "not on PATH" else ())
        for name, variables in NO_COMPILER.items()
    ],
)
def test_installs_without_a_compiler(stub: Path, tmp_path: Path, variables: dict[str, str]) -> None:
    target = tmp_path / "installed"
    run(*PIP, "install", *FROM_HERE, "--target", target, ".", cwd=stub, **variables)
    text = info_of(target, tmp_path)
    assert "reference  yes" in text
    assert "cpu        no: the build failed with CompileError" in text


def test_a_required_build_fails_without_a_compiler(stub: Path) -> None:
    variables = NO_COMPILER["failing"] | {"LRFUSED_BUILD": "required"}
    output = run(*PIP, "wheel", *FROM_HERE, ".", cwd=stub, ok=False, **variables)
    assert "returned non-zero exit status" in output or "failed with exit code" in output


def test_the_build_can_be_left_out(stub: Path, tmp_path: Path) -> None:
    target = tmp_path / "installed"
    install = [*PIP, "install", *FROM_HERE, "--target", target, "."]
    run(*install, cwd=stub, LRFUSED_BUILD="never")
    assert "cpu        no: not built" in info_of(target, tmp_path)
    assert "must be optional, required or never" in run(
        *install, cwd=stub, ok=False, LRFUSED_BUILD="please"
    )


@pytest.mark.parametrize(
    "where", ["--inplace", pytest.param("--build-lib=.", marks=pytest.mark.slow)]
)
def test_either_the_module_or_the_reason(stub: Path, where: str) -> None:
    def build(**variables: str) -> str:
        (stub / "setup.py").touch()  # else an up-to-date module is kept, as it should be
        run(sys.executable, "setup.py", "build_ext", where, cwd=stub, **variables)
        return info_of(stub, stub)

    assert "cpu        yes: a stub" in build()
    assert "cpu        no: the build failed" in build(**NO_COMPILER["failing"])
    assert not list((stub / "lrfused").glob("_cpu*.so"))
    assert "cpu        yes: a stub" in build()
    assert not (stub / "lrfused" / "build_failure.txt").exists()


def test_rebuilds_what_depends_on_a_changed_file(stub: Path) -> None:
    def compiled() -> list[str]:
        output = run(sys.executable, "setup.py", "build_ext", "--inplace", cwd=stub)
        return [name for name in ("module.cpp", "other.cpp") if f"-c csrc/cpu/{name}" in output]

    other = stub / "csrc" / "cpu" / "other.cpp"
    other.write_text("int other() { return 1; }\n")
    assert compiled() == ["module.cpp", "other.cpp"]
    assert compiled() == []
    other.touch()
    assert compiled() == ["other.cpp"]
    (stub / "csrc" / "core" / "common.h").touch()
    assert compiled() == ["module.cpp", "other.cpp"]


def test_import_is_silent_and_starts_nothing(tmp_path: Path) -> None:
    code = """
import sys

def forbid(event, arguments):
    starts = ("subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system")
    if event in starts:
        print(f"lrfused starts a process: {event} {arguments}")

import torch  # what torch does when it is imported is not ours
before = set(sys.modules)
sys.addaudithook(forbid)
import lrfused
for name in ("matplotlib", "triton", "tqdm"):
    if name in set(sys.modules) - before:
        print(f"lrfused imports {name}")
"""
    output = run(sys.executable, "-W", "error", "-c", code, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert output == ""

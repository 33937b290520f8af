"""How `lrfused._cuda` is built, and what is left where it is not."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from . import stubs

sys.path.insert(0, str(Path(__file__).parents[2] / "csrc"))
import build_cuda

ROOT = Path(__file__).parents[2]
try:
    NVCC = build_cuda.find_nvcc()
except build_cuda.Unavailable:
    NVCC = None
needs_nvcc = pytest.mark.skipif(NVCC is None, reason="no nvcc")

KERNEL = """
__global__ void twice(float* x) { x[threadIdx.x] *= 2.0f; }
"""


@pytest.fixture
def source(tmp_path):
    """A small CUDA module in place of ours, and no C++ module to speak of."""
    folder = tmp_path / "source"
    (folder / "csrc" / "cuda").mkdir(parents=True)
    (folder / "csrc" / "cpu").mkdir()
    (folder / "lrfused").mkdir()
    for name in ("setup.py", "csrc/build_cuda.py"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "csrc" / "cpu" / "module.cpp").write_text(stubs.module("_cpu", {}))
    (folder / "csrc" / "cuda" / "kernel.cu").write_text(KERNEL)
    (folder / "csrc" / "cuda" / "module.cpp").write_text(
        stubs.module("_cuda", {"is_there": "Py_NewRef(Py_True)"})
    )
    return folder


def build(folder, ok=True, **variables):
    """Builds in place; the output."""
    ours = ("LRFUSED_BUILD", "LRFUSED_CUDA", "LRFUSED_CUDA_ARCH_LIST", "TORCH_CUDA_ARCH_LIST")
    environment = {k: v for k, v in os.environ.items() if k not in ours}
    done = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=folder,
        env=environment | variables,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert (done.returncode == 0) == ok, done.stdout
    return done.stdout


def modules(folder):
    """The modules that were left."""
    return sorted(path.name.split(".")[0] for path in (folder / "lrfused").glob("*.so"))


def note(folder):
    """Why there is no CUDA module."""
    return (folder / "lrfused" / "build_failure_cuda.txt").read_text()


@needs_nvcc
def test_module_is_built_and_rebuilt_where_something_changed(source):
    output = build(source, LRFUSED_CUDA_ARCH_LIST="9.0+PTX")
    assert "code=sm_90 " in output and "code=compute_90" in output and "-fmad=false" in output
    assert modules(source) == ["_cpu", "_cuda"]
    assert not list(source.glob(".ninja*"))
    code = "import sys; sys.path.insert(0, 'lrfused'); import _cuda; assert _cuda.is_there()"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True)
    assert "nvcc -c" not in build(source, LRFUSED_CUDA_ARCH_LIST="9.0+PTX")
    (source / "csrc" / "cuda" / "kernel.cu").touch()
    again = build(source, LRFUSED_CUDA_ARCH_LIST="9.0+PTX")
    assert "-c csrc/cuda/kernel.cu" in again and "-c csrc/cuda/module.cpp" not in again
    # What cannot be built any more does not stay either.
    (source / "csrc" / "cuda" / "kernel.cu").write_text("this is no CUDA")
    assert "without lrfused._cuda" in build(source, LRFUSED_CUDA_ARCH_LIST="9.0+PTX")
    assert modules(source) == ["_cpu"]
    assert "LRFUSED_CUDA=required shows" in note(source)


MISSING = [
    pytest.param(
        {"NVCC": "/nonexistent/nvcc"}, "nvcc was not found (/nonexistent/nvcc)", id="no nvcc"
    ),
    pytest.param(
        {"NVCC": "false"},
        "the build failed with CalledProcessError",
        id="nvcc fails",
        marks=pytest.mark.slow,
    ),
    pytest.param(
        {"NVCC": "true", "LRFUSED_CUDA_ARCH_LIST": "9.0;Hopper"},
        "LRFUSED_CUDA_ARCH_LIST: an entry must be like 9.0 or 9.0+PTX, got 'Hopper'",
        id="bad list",
        marks=pytest.mark.slow,
    ),
]


@pytest.mark.parametrize(("variables", "reason"), MISSING)
def test_the_rest_works_without_it(source, variables, reason):
    build(source, **variables)
    assert modules(source) == ["_cpu"]
    assert reason in note(source)
    build(source, ok=False, LRFUSED_CUDA="required", **variables)
    build(source, LRFUSED_CUDA="never", **variables)
    assert modules(source) == ["_cpu"]


@pytest.mark.parametrize("variable", ["LRFUSED_CUDA_ARCH_LIST", "TORCH_CUDA_ARCH_LIST"])
def test_architectures_of_the_environment(monkeypatch, variable):
    monkeypatch.delenv("LRFUSED_CUDA_ARCH_LIST", raising=False)
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "7.5")
    monkeypatch.setenv(variable, "8.6;9.0a 12.0+PTX")
    entries = build_cuda.architectures("false")
    assert entries == ["8.6", "9.0a", "12.0+PTX"]
    assert build_cuda.gencode(entries) == [
        "-gencode=arch=compute_86,code=sm_86",
        "-gencode=arch=compute_90a,code=sm_90a",
        "-gencode=arch=compute_120,code=sm_120",
        "-gencode=arch=compute_120,code=compute_120",
    ]


def test_the_module_is_told_what_it_is_built_for(tmp_path):
    made = build_cuda.rules("nvcc", ["7.5", "9.0a", "12.0+PTX"], tmp_path / "module.so", tmp_path)
    assert "-DLRF_CUDA_CHIPS='\"7.5:9.0a:12.0+PTX\"'" in made


def test_a_build_that_is_required_shows_why_it_failed(source):
    """And leaves no older module in its place."""
    compiler = source / "nvcc"
    compiler.write_text("#!/bin/sh\necho 'kernel.cu(2): error: this is no CUDA'\nexit 1\n")
    compiler.chmod(0o755)
    older = source / "lrfused" / f"_cuda{sysconfig.get_config_var('EXT_SUFFIX')}"
    older.touch()
    variables = {"NVCC": str(compiler), "LRFUSED_CUDA_ARCH_LIST": "9.0"}
    output = build(source, ok=False, LRFUSED_CUDA="required", **variables)
    assert "kernel.cu(2): error: this is no CUDA" in output
    assert not older.exists()


def test_default_architectures_are_those_that_nvcc_knows(monkeypatch, tmp_path):
    monkeypatch.delenv("LRFUSED_CUDA_ARCH_LIST", raising=False)
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    old = tmp_path / "nvcc"
    old.write_text("#!/bin/sh\necho sm_80\necho sm_86\necho sm_90\n")
    old.chmod(0o755)
    assert build_cuda.architectures(str(old)) == ["8.0", "9.0+PTX"]
    old.write_text("#!/bin/sh\necho sm_75\necho sm_80\n")
    assert build_cuda.architectures(str(old)) == ["7.5", "8.0+PTX"]
    old.write_text("#!/bin/sh\necho sm_70\n")
    with pytest.raises(build_cuda.Unavailable, match="none of the architectures"):
        build_cuda.architectures(str(old))

"""Fresh random data for every run, which a failing test says how to repeat."""

import gc
import math
import os
import secrets
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from lib.optimizers import FIRST, Kind
from lib.seeds import SEED, Rng
from lib.selection import (
    IN_PROCESSES,
    INTERPRETED_LATER,
    KEPT,
    KEPT_OF_PTX,
    NOT_KEPT,
    SHORT,
    TRIALS,
    is_of_another_rule_later,
    is_translated,
)
from ptx import executed_lines

INTERPRETING = ("triton", "cuda_emulated")
os.environ["TRITON_INTERPRET"] = "1"  # Triton reads it when it is imported, by whomever

hypothesis.settings.register_profile("lrfused", deadline=None, derandomize=False, print_blob=True)
hypothesis.settings.load_profile("lrfused")


# SequentialLR of torch 2.8 calls the other schedulers in a way that it deprecates itself.
TORCH_2_8 = "ignore:The epoch parameter in .scheduler.step:UserWarning:torch.optim.lr_scheduler"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", TORCH_2_8)
    os.environ.setdefault(SEED, str(secrets.randbits(32)))  # the workers of xdist inherit it
    if executed_lines.FOLDER not in os.environ:  # not in the workers, which inherit it
        made = tempfile.mkdtemp(prefix="lrfused-ptx-")
        os.environ[executed_lines.FOLDER] = made
        config.add_cleanup(lambda: shutil.rmtree(made))
    if _on_gpu(config):
        del os.environ["TRITON_INTERPRET"]


def pytest_sessionfinish(session: pytest.Session) -> None:
    executed_lines.leave()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Of the process that started the others: what they have executed."""
    folder = Path(os.environ[executed_lines.FOLDER])
    for line in executed_lines.report(executed_lines.summed(folder)):
        terminalreporter.write_line(line)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Kernels are interpreted or they run on a GPU, not both in one process."""
    return True if _on_gpu(config) and collection_path.name in INTERPRETING else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        given = getattr(getattr(item, "callspec", None), "params", {})
        name = getattr(item, "originalname", "")
        over = (given.get(key) for key in ("backend", "kernels"))
        backends = [value for value in over if isinstance(value, str)]
        kind = given.get("kind", FIRST)
        is_other = isinstance(kind, Kind) and kind is not FIRST
        is_late = "triton" in backends and (
            _is_later(item.path, name) or given.get("trial", 0) >= TRIALS.get(name, math.inf)
        )
        is_late |= "cuda-ptx" in backends and _is_later(item.path, name, KEPT_OF_PTX)
        is_late |= "triton-ptx" in backends and not is_translated(name, given)
        is_late |= is_other and any(backend != SHORT for backend in backends)
        is_late |= name in IN_PROCESSES and (is_other or backends != [SHORT])
        if is_late:
            item.add_marker(pytest.mark.slow)
        if is_of_another_rule_later(item.path, name, given):
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """A garbage collection looks at no module and no test: each would take a quarter second."""
    gc.collect()
    gc.freeze()


def _is_later(path: Path, name: str, kept: Sequence[str] = ()) -> bool:
    """Not where Triton alone was asked for."""
    place = path.relative_to(Path(__file__).parent).parts[0]
    is_kept = name not in NOT_KEPT and {path.name, name} & {*KEPT, *kept}
    is_asked_for = os.environ.get("LRFUSED_TEST_BACKENDS") == "triton"
    return place in INTERPRETED_LATER and not is_kept and not is_asked_for


def _on_gpu(config: pytest.Config) -> bool:
    return config.option.markexpr == "gpu" and "LRFUSED_GPU_DRY_RUN" not in os.environ


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads would only wait for each other over small tensors; a test that wants more says so."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> Rng:
    """Generators that depend on the run's seed and the test's name; shown when the test fails."""
    seed = int(os.environ[SEED])
    print(f"repeat with {SEED}={seed}")
    generator = np.random.default_rng([seed, zlib.crc32(request.node.nodeid.encode())])
    return Rng(generator, torch.Generator().manual_seed(int(generator.integers(2**63))))

"""One launch of a size for all cells that a session wants, whichever process asks first."""

import json
import os
from pathlib import Path

import pytest
from lib.optimizers import kind  # noqa: F401 (a fixture)
from lib.seeds import SEED
from torch import distributed

from .launching import launch

BASE, EACH = 120.0, 1.0  # seconds that a launch may take, whatever else the machine does


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the workers of pytest-xdist share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "checkpoints"
    folder.mkdir(exist_ok=True)
    return folder


def outcomes(request: pytest.FixtureRequest, shared: Path, world: int) -> dict[str, str]:
    """What became of the cells of as many ranks that this session has a test for."""
    import fcntl  # not on every system, while this file is imported on all

    if not (distributed.is_available() and distributed.is_gloo_available()):
        pytest.skip("no gloo here")
    fixture = request.fixturename
    items = [item for item in request.session.items if fixture in getattr(item, "fixturenames", ())]
    wanted = sorted({item.callspec.params["cell"] for item in items})
    seed = int(os.environ[SEED])
    folder = shared / fixture
    folder.mkdir(exist_ok=True)
    results = folder / "results.json"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not results.exists():
            found = launch(folder, world, wanted, seed, BASE + EACH * len(wanted))
            results.write_text(json.dumps(found))
    return json.loads(results.read_text())


@pytest.fixture(scope="session")
def became(request: pytest.FixtureRequest, shared: Path) -> dict[str, str]:
    """What became of each cell of two ranks."""
    return outcomes(request, shared, 2)


@pytest.fixture(scope="session")
def became_of_four(request: pytest.FixtureRequest, shared: Path) -> dict[str, str]:
    """What became of each cell of four ranks."""
    return outcomes(request, shared, 4)

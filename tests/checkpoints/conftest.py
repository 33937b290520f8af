"""One launch for all cells that a session wants, whichever of its processes asks first."""

import fcntl
import json
import os
from pathlib import Path

import pytest

from .launching import launch

SEED = "LRFUSED_TEST_SEED"
WORLD = 2
BASE, EACH = 120.0, 1.0  # seconds that a launch may take, whatever else the machine does


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the workers of pytest-xdist share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "checkpoints"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def became(request: pytest.FixtureRequest, shared: Path) -> dict[str, str]:
    """What became of each cell that this session has a test for."""
    chosen = (getattr(item, "callspec", None) for item in request.session.items)
    wanted = sorted({spec.params["cell"] for spec in chosen if spec and "cell" in spec.params})
    seed = int(os.environ[SEED])
    results = shared / "results.json"
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not results.exists():
            found = launch(shared, WORLD, wanted, seed, BASE + EACH * len(wanted))
            results.write_text(json.dumps(found))
    return json.loads(results.read_text())

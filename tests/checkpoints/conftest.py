"""One launch of a size for all cells that a session wants, whichever process asks first."""

import json
import os

import pytest
from lib.once import once
from lib.optimizers import kind  # noqa: F401 (a fixture)
from lib.seeds import SEED
from torch import distributed

from .launching import launch

BASE, EACH = 120.0, 1.0  # seconds that a launch may take, whatever else the machine does


def outcomes(
    request: pytest.FixtureRequest, factory: pytest.TempPathFactory, world: int
) -> dict[str, str]:
    """What became of the cells of as many ranks that this session has a test for."""
    if not (distributed.is_available() and distributed.is_gloo_available()):
        pytest.skip("no gloo here")
    name = request.fixturename
    items = [item for item in request.session.items if name in getattr(item, "fixturenames", ())]
    wanted = sorted({item.callspec.params["cell"] for item in items})
    seed, limit = int(os.environ[SEED]), BASE + EACH * len(wanted)
    found = once(
        factory, name, lambda folder: json.dumps(launch(folder, world, wanted, seed, limit))
    )
    return dict(json.loads(found))


@pytest.fixture(scope="session")
def became(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """What became of each cell of two ranks."""
    return outcomes(request, tmp_path_factory, 2)


@pytest.fixture(scope="session")
def became_of_four(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """What became of each cell of four ranks."""
    return outcomes(request, tmp_path_factory, 4)

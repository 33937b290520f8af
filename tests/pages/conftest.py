"""The list of all tests, which takes pytest many seconds."""

from collections.abc import Iterator

import pytest
from lib import collecting
from lib.once import once


@pytest.fixture(scope="session")
def listed_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """This session's processes ask for it once."""
    text = once(tmp_path_factory, "collected", lambda folder: collecting.listing())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collecting, "listing", lambda: text)
        yield

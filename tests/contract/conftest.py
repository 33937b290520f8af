"""Of the tests with the interpreted backend, as many as there is time for."""

from interpreting import pytest_collection_modifyitems  # noqa: F401 (a hook)

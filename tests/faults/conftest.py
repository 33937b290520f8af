"""The tests that take a kind of optimizer run over all of them."""

from lib.optimizers import kind  # noqa: F401 (a fixture)

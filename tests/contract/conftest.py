"""Every test of the contract that takes a backend runs over all of them."""

from emulating import cuda, emulation  # noqa: F401 (fixtures)
from every_backend import backend  # noqa: F401 (a fixture)

"""What every test of the step starts from."""

from emulating import cuda, emulation  # noqa: F401 (fixtures)
from every_backend import backend, kernels  # noqa: F401 (fixtures)
from threads import one_thread  # noqa: F401 (a fixture)

"""Parameters that pose as lying on several devices, for both GPU backends, on a CPU."""

import pytest
from lib.emulating import cuda, emulation  # noqa: F401 (fixtures)
from lib.every_backend import cuda_ptx, parameter, ready  # noqa: F401 (the first is a fixture)
from lib.fake_devices import fill_with_garbage, posed_device_of
from lib.rules_for_steps import rule  # noqa: F401 (a fixture)

from lrfused.backends import multi_device
from lrfused.backends.cuda.step import CudaStep

BACKENDS = [parameter(name) for name in ("triton", "cuda", "cuda-ptx")]


@pytest.fixture(params=BACKENDS)
def backend(request, monkeypatch):
    """A GPU backend, interpreted or emulated, on devices that pose.

    Before each step everything that has to be copied from another device is garbage.
    """
    name = ready(request)
    step = multi_device.StepTogether.__call__

    def spoiled(together, work):
        fill_with_garbage(together)
        return step(together, work)

    monkeypatch.setattr(multi_device.StepTogether, "__call__", spoiled)
    monkeypatch.setattr(multi_device, "device_of", posed_device_of)
    return name


@pytest.fixture
def launches(request, monkeypatch, backend):
    """(device, whether it is apply) of every launch."""
    seen = []
    if backend == "triton":
        from lrfused.backends.triton import step as triton_step

        launch = triton_step.launch

        def seen_launch(kernel, programs, device, *arguments, **how):
            seen.append((device, kernel is triton_step.apply_kernel))
            launch(kernel, programs, device, *arguments, **how)

        monkeypatch.setattr(triton_step, "launch", seen_launch)
        return seen
    emulated_cuda, run = request.getfixturevalue("cuda"), CudaStep.run

    def seen_run(step, call, phases):
        emulated_cuda.launches()
        run(step, call, phases)
        seen.extend((step.device, threads == 256) for _, threads in emulated_cuda.launches())

    monkeypatch.setattr(CudaStep, "run", seen_run)
    return seen

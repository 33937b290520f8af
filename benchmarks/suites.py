"""What a run does if it is not told: by device, and less of everything in a quick run."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from device import Cpu, Device
from gpu_device import DryGpu, Gpu, HiddenLag
from gpu_providers import GPU_PROVIDERS, OWN_PROVIDERS
from providers import PROVIDERS, Provider
from workloads import GPU_WORKLOADS, QUICK_WORKLOADS, WORKLOADS, Workload


@dataclass(frozen=True)
class Suite:
    """
    Attributes:
        quick_workloads, quick_providers: names of those of a quick run.
        workloads, providers: all that there are.
        sittings: how many there are in a run.
    """

    device: type[Device]
    workloads: Mapping[str, Workload]
    providers: Mapping[str, Provider]
    quick_workloads: tuple[str, ...]
    quick_providers: tuple[str, ...]
    sittings: int = 1


def _tiny(workload: Workload) -> Workload:
    """The same in a few small tensors, to be stepped once."""
    shapes = tuple(tuple(min(size, 7) for size in shape) for shape in workload.shapes[:5])
    return replace(workload, shapes=shapes, untimed_steps=0, timed_steps=1)


# Compiling takes a minute for every list of tensors.
_CPU = Suite(
    Cpu,
    WORKLOADS,
    PROVIDERS,
    QUICK_WORKLOADS,
    tuple(name for name in PROVIDERS if name != "compile"),
    sittings=4,
)
_GPU = Suite(
    Gpu,
    GPU_WORKLOADS,
    GPU_PROVIDERS,
    ("gpt2", "gpt3", "tiny1000", "tiny1000-fresh"),
    ("fused", *OWN_PROVIDERS),
)
# torch.compile would compile C++ here; "lrfused" is there in place of backends that are not.
_DRY = Suite(
    DryGpu,
    {name: _tiny(workload) for name, workload in GPU_WORKLOADS.items()},
    {name: p for name, p in GPU_PROVIDERS.items() if name != "compile"}
    | {"lrfused": PROVIDERS["lrfused"]},
    _GPU.quick_workloads,
    (*_GPU.quick_providers, "lrfused"),
)

SUITES = {
    "cpu": _CPU,
    "gpu": _GPU,
    "gpu-hidden": replace(_GPU, device=HiddenLag),
    "dry-gpu": _DRY,
}

"""The present CUDA device, and what stands in for it in a dry run."""

import importlib.metadata
import importlib.util
import time
from statistics import median
from typing import Any

import torch
from device import Call, Cpu
from kernels import launched, wait

HOST_CALLS = 15
LAG_CYCLES = 10_000_000  # 5 ms at 2 GHz: more than a host needs for a step over 148 tensors


class DryGpu(Cpu):
    """All that is done for a GPU, on tiny tensors of a CPU."""

    name = "gpu"
    bandwidth_kernels = ("copy",)
    bandwidth_elements = 1009
    shares_tensors = True

    def details(self, call: Call, prepare: Call) -> dict[str, Any]:
        return {"gpu": {"host_seconds": _host_seconds(call, prepare), **_launches(call, prepare)}}

    def describe(self) -> dict[str, Any]:
        return {"gpu": "none: a dry run"}

    def versions(self) -> dict[str, str]:
        triton = importlib.util.find_spec("triton") is not None
        return {
            "cuda": torch.version.cuda or "none",
            "triton": importlib.metadata.version("triton") if triton else "none",
        }


class Gpu(DryGpu):
    """The clock is that of its events, the memory that of torch's allocator."""

    place = torch.device("cuda")
    bandwidth_elements = 2**28  # 1 GiB

    def seconds(self, call: Call) -> float:
        """From an idle device to the end of the work: where the host lags, that counts."""
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        wait()
        begin.record()
        call()
        end.record()
        wait()
        return 1e-3 * float(begin.elapsed_time(end))

    def peak_extra_bytes(self, call: Call) -> int | None:
        wait()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        wait()
        return int(torch.cuda.max_memory_allocated() - before)

    def available_bytes(self) -> int | None:
        free, _ = torch.cuda.mem_get_info()
        return int(free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated())

    def describe(self) -> dict[str, Any]:
        found = torch.cuda.get_device_properties(0)
        return {
            "gpu": found.name,
            "capability": f"{found.major}.{found.minor}",
            "multiprocessors": found.multi_processor_count,
            "gpu_memory_gib": round(found.total_memory / 2**30, 1),
        }


class HiddenLag(Gpu):
    """The same with the device asleep while the host prepares: what the work alone takes."""

    name = "gpu-hidden"

    def seconds(self, call: Call) -> float:
        return self._asleep(call)[0]

    def details(self, call: Call, prepare: Call) -> dict[str, Any]:
        prepare()
        return {"gpu": {"lag_was_hidden": self._asleep(call)[1]}}

    def _asleep(self, call: Call) -> tuple[float, bool]:
        """Seconds from the device's awakening on, and whether it slept until the call was done."""
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        wait()
        torch.cuda._sleep(LAG_CYCLES)
        begin.record()
        call()
        end.record()
        was_hidden = not begin.query()
        wait()
        return 1e-3 * float(begin.elapsed_time(end)), was_hidden


def _host_seconds(call: Call, prepare: Call) -> float:
    """How long the host is busy with a call that finds the device idle."""
    taken = []
    for _ in range(HOST_CALLS):
        prepare()
        wait()
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return median(taken)


def _launches(call: Call, prepare: Call) -> dict[str, Any]:
    prepare()
    ran = launched(call)
    return {
        "launches": len(ran.kernels),
        "copies": len(ran.copies),
        "kernel_seconds": ran.seconds,
    }

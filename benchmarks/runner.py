"""One case: every provider is built, checked against the reference, timed in turns, measured."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from data import Data, Settings
from device import Device
from host_time import kernel_share
from providers import Provider
from stream import Rates, Stream, bandwidth
from timing import Contestant, Spread, compete
from verify import Reference, WrongResult, check, reference
from workloads import Case

import lrfused

GIB = 2**30
# Parameter, gradient and two moments, and once more for the temporaries of a step.
TENSORS_NEEDED = 5
SHARED = 2  # of them, where providers share parameters and gradients
WATCHED_STEPS = 25
SLOW = 10_000_000  # parameters; a few watched steps are enough

OK, WRONG, FAILED, LEFT_OUT, NOT_INSTALLED = "ok", "wrong", "failed", "left out", "not installed"
FAILURES = (WRONG, FAILED)

Measurement = dict[str, Any]
Expected = dict[str, Reference]  # by rider


def run_case(
    case: Case,
    providers: Sequence[Provider],
    rounds: int,
    stream: Stream,
    settings: Settings,
    tick: Callable[[str], None],
    again: bool = False,
) -> tuple[list[Measurement], Rates]:
    """A measurement for every provider: its times, or why there are none.

    Where the memory does not hold all of them, each has the device for itself while it runs.

    Args:
        again: only times, in a later sitting; the first has checked all results.
        tick: is told a provider's name whenever a piece of its work is done: 1 + rounds pieces.

    Returns:
        The measurements, and the memory bandwidth before each round.
    """
    rates = Rates()
    _forget()
    workload = case.workload
    settings = replace(settings, optimizer=workload.optimizer, rider=workload.rider)
    data = Data(case, settings, device=stream.device)
    expected = None
    if not again:
        names = {"", workload.rider}
        expected = {name: reference(data, replace(settings, rider=name)) for name in names}
    found = []
    groups = _together(providers, data)
    for group in groups:
        found += _run(group, data, expected, rounds, stream, rates, settings, tick)
        _forget()
    if len(groups) > 1:
        found = [{**measurement, "alone": True} for measurement in found]
    return found, rates


def _together(providers: Sequence[Provider], data: Data) -> list[Sequence[Provider]]:
    """The providers that take turns with each other: all, if the memory holds them."""
    free = data.device.available_bytes()
    if not data.device.shares_tensors or free is None:
        return [providers]
    present = sum(provider.missing() is None for provider in providers)
    own = TENSORS_NEEDED - SHARED - 1
    needed = (SHARED + own * present + 2) * _bytes(data)  # 2: temporaries of one at a time
    return [providers] if needed <= free else [[provider] for provider in providers]


def left_out(case: Case, providers: Sequence[Provider], reason: str) -> list[Measurement]:
    """A measurement without times for everyone."""
    return [{**_place(case, p), "status": LEFT_OUT, "reason": reason} for p in providers]


def _run(
    providers: Sequence[Provider],
    data: Data,
    expected: Expected | None,
    rounds: int,
    stream: Stream,
    rates: Rates,
    settings: Settings,
    tick: Callable[[str], None],
) -> list[Measurement]:
    """Build, check and time those that take turns with each other."""
    device = stream.device
    entries = {p.name: _Entry(p, data, device, settings) for p in providers}
    for name, entry in entries.items():
        entry.build(expected)
        for _ in range(1 if entry.contestant else 1 + rounds):
            tick(name)
    contestants = {name: e.contestant for name, e in entries.items() if e.contestant}
    for name in compete(contestants, rounds, device, lambda: stream.sample(rates)):
        tick(name)
    again = expected is None
    return [entry.measurement(bandwidth(rates), again) for entry in entries.values()]


def timed(found: Measurement, turns: list[float], stream: list[float]) -> Measurement:
    """With the spread of the turns' times, and the memory's bandwidth in each sitting."""
    spread = Spread.of(turns)
    moved = found["bytes_per_parameter"] * found["parameters"]
    return {
        **found,
        "seconds": {**asdict(spread), "rounds": turns},
        "gigabytes_per_second": 1e-9 * moved / spread.median,
        "stream": stream,
    }


def _forget() -> None:
    """Compiled code keeps the optimizer of an earlier case alive, and is looked through."""
    torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _place(case: Case, provider: Provider) -> Measurement:
    """What was to be measured."""
    return {
        "workload": case.workload.name,
        "dtype": case.dtype_name,
        "form": case.form.name,
        "parameters": case.workload.parameters,
        "tensors": len(case.workload.shapes),
        "provider": provider.name,
    }


def _bytes(data: Data) -> int:
    return data.case.workload.parameters * data.case.dtype.itemsize


class _Entry:
    """A provider in one case."""

    def __init__(self, provider: Provider, data: Data, device: Device, settings: Settings):
        self.provider, self.data, self.device = provider, data, device
        self.settings = replace(settings, rider="") if provider.is_plain else settings
        self.status, self.reason = OK, ""
        self.contestant: Contestant | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        self.deviation: dict[str, float] = {}

    def build(self, expected: Expected | None) -> None:
        """Build and check; what does not pass is never timed."""
        self.status, self.reason = self._absence()
        if self.status != OK:
            return
        try:
            params = self.data.parameters()
            pipeline = self.provider.build(params, self.data.case.form, self.settings)
            if expected is not None:
                wanted = expected[self.settings.rider]
                self.deviation = check(self.provider, pipeline, params, self.data, wanted)
        except WrongResult as error:
            self.status, self.reason = WRONG, str(error)
        except torch.OutOfMemoryError as error:
            self.status, self.reason = LEFT_OUT, str(error).partition(". ")[0]
        except Exception as error:  # whatever it is that a provider raises, the others go on
            self.status, self.reason = FAILED, f"{type(error).__name__}: {error}"
            # torch's GradScaler with bfloat16 on CUDA, say; lrfused has no excuse.
            if isinstance(error, NotImplementedError) and "lrfused" not in self.provider.name:
                self.status, self.reason = LEFT_OUT, str(error).partition("\n")[0]
        else:
            self.contestant = Contestant(pipeline.step, params, self.data)
            self.optimizer = pipeline.optimizer

    def measurement(self, bandwidth: float, again: bool) -> Measurement:
        found = {**_place(self.data.case, self.provider), "status": self.status}
        if self.contestant is None:
            return {**found, "reason": self.reason}
        case = self.data.case
        found["bytes_per_parameter"] = self.provider.bytes_per_parameter(
            case.form, case.dtype, case.workload.optimizer, self.settings.rider
        )
        found = timed(found, self.contestant.turns, [bandwidth])
        return found if again else {**found, **self._watched(self.contestant)}

    def _watched(self, contestant: Contestant) -> Measurement:
        contestant.take_step(self.device)
        return {
            "deviation": self.deviation,
            "peak_extra_bytes": self.device.peak_extra_bytes(contestant.step),
            "host": self._host(contestant),
            **self.device.details(contestant.step, contestant.write_gradients),
        }

    def _host(self, contestant: Contestant) -> dict[str, float] | None:
        if not isinstance(self.optimizer, lrfused.FusedOptimizer):
            return None
        steps = 3 if self.data.case.workload.parameters > SLOW else WATCHED_STEPS
        return kernel_share(self.optimizer, lambda: contestant.take_step(self.device), steps)

    def _absence(self) -> tuple[str, str]:
        """Why the provider does not take part, if so."""
        workload = self.data.case.workload
        missing = self.provider.missing()
        if missing is not None:
            return NOT_INSTALLED, missing
        if workload.optimizer not in self.provider.optimizers:
            return LEFT_OUT, f"it has no {workload.optimizer}"
        if workload.rider and self.provider.ride_bytes is None:
            return LEFT_OUT, "it is not timed with riders"
        tensors, most = len(workload.shapes), self.provider.most_tensors
        if tensors > most:
            return LEFT_OUT, f"{tensors} tensors, it would take too long beyond {most:g}"
        if workload.name in self.provider.skips:
            return LEFT_OUT, "preparing it takes too long for so little work"
        needed = (TENSORS_NEEDED - (SHARED if self.data.kept else 0)) * _bytes(self.data)
        free = self.device.available_bytes()
        if free is not None and needed > free:
            return LEFT_OUT, f"needs {needed / GIB:.1f} GiB of memory, {free / GIB:.1f} are free"
        return OK, ""

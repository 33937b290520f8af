"""A machine without a GPU, made to look like one whose GPU is late."""

from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode

from lrfused.backends.cpu.step import CpuStep
from lrfused.backends.triton.backend import TritonBackend
from lrfused.backends.work import UNKNOWN
from lrfused.device.async_copy import DeviceQueue
from lrfused.state.device_state import Field

ERROR_WORDS = [field for field in Field if field.name.startswith("ERROR")]


class LateQueue(DeviceQueue):
    """Copies run when they are told to; of the host's memory they read what is there then."""

    def __init__(self):
        super().__init__(torch.device("cpu"))
        self.capturing = False
        self.waiting, self.rooms = [], []
        self.behind = []  # marks, by copies beside a capture
        self.asked = self.done = self.marks = 0

    def pinned(self, size, dtype):
        self.rooms.append(torch.zeros(size, dtype=dtype))
        return self.rooms[-1]

    def copy(self, target, source):
        is_ours = any(source is room for room in self.rooms)
        self.waiting.append((target, source if is_ours else source.clone()))
        self.asked += 1

    def record_event(self):
        self.marks += 1
        return LateMark(self, self.asked)

    def is_capturing(self):
        return self.capturing

    def finish(self):
        assert not self.capturing, "waited for the device in a capture"
        self.run()

    @contextmanager
    def beside_capture(self, after=None):
        self.behind.append(after)
        self.copy, before = lambda target, source: target.copy_(source), self.copy
        try:
            yield
        finally:
            self.copy = before

    def run(self, copies=None):
        """Let the device do the oldest copies, or all."""
        for target, source in self.waiting[:copies]:
            target.copy_(source)
            self.done += 1
        del self.waiting[:copies]


class LateMark:
    def __init__(self, queue, place):
        self.queue, self.place = queue, place

    def query(self):
        assert not self.queue.capturing, "asked for an event in a capture"
        return self.queue.done >= self.place


class PosingStep:
    """The C++ kernels as a GPU's: nobody knows what they decided, the first error stays."""

    updates = True

    def __init__(self, work):
        self.step, self.pushed = CpuStep(work), []

    def __call__(self, work):
        with torch._C.DisableTorchFunction():
            words = work.state.words
            latched = [int(words[field]) for field in ERROR_WORDS]
            outside = work.grad_scale, work.found_inf
            work.grad_scale, work.found_inf = float(outside[0]), bool(outside[1])
            self.step(work)
            work.grad_scale, work.found_inf = outside
            if latched[0]:
                words[ERROR_WORDS] = torch.tensor(latched)
        return UNKNOWN

    def update(self, work, indices, sources):
        self.step.update(work, indices, sources)

    def push(self, work):
        self.pushed.append(work.hyper.values.copy())


class PosingBackend(TritonBackend):
    """It says that it is Triton's, and steps with the C++ kernels."""

    def bind(self, work, instruction_set):
        return PosingStep(work)


WAITING = {
    "item",
    "tolist",
    "numpy",
    "cpu",
    "nonzero",
    "equal",
    "allclose",
    "masked_select",
    "unique",
    "__bool__",
    "__float__",
    "__int__",
    "__index__",
    "__complex__",
    "__contains__",
    "__array__",
    "is_nonzero",
    "synchronize",
}


ALLOCATING = {"empty", "zeros", "ones", "full", "rand", "randn", "tensor", "clone"}


class NothingIsAllocated(TorchFunctionMode):
    """A device that records a graph refuses to give memory, on whatever stream."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "").removeprefix("new_").removesuffix("_like")
        assert name not in ALLOCATING, f"{name} in a capture"
        return func(*args, **(kwargs or {}))


class NothingWaits(TorchFunctionMode):
    """Refuses what would make the host wait for a GPU: all but what a queue copied to the host."""

    def __init__(self, queue=None):
        super().__init__()
        self.queue = queue

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in WAITING:
            arrived = self.queue is not None and any(args[0] is room for room in self.queue.rooms)
            assert arrived, f"{func.__name__} waits for the device"
        return func(*args, **(kwargs or {}))

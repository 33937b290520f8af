"""An optimizer's counters: where they live, and how the host reads them."""

from typing import Any

import torch
from torch import Tensor

from lrfused.device.async_copy import DeviceQueue
from lrfused.device.readback import Readback, Seen
from lrfused.rules import UpdateRule
from lrfused.settings.loss_scale import LossScale
from lrfused.settings.options import GroupOptions
from lrfused.state.device_state import DeviceState, Field, Reading
from lrfused.state.errors import error_of
from lrfused.state.step_counts import Groups, States


class Counters:
    """Owns an optimizer's `DeviceState`: creates it on first use, moves it, reads it back.

    Its memory stays the same from then on, unless `DeviceState.version` rises.
    """

    def __init__(self, rule: UpdateRule, policy: LossScale | None):
        self._rule, self._policy = rule, policy
        self.device_state: DeviceState | None = None  # created on first use
        self.readback: Readback | None = None  # created at the first asynchronous step

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "readback": None}

    def state(self, groups: Groups) -> DeviceState:
        """The state, on the device of the first parameter."""
        if self.device_state is None:
            self.device_state = DeviceState(self._rule, self._policy, len(groups), _home(groups))
        return self.device_state

    @property
    def step(self) -> int:
        """Completed, non-skipped steps; waits for the device."""
        return 0 if self.device_state is None else self.device_state.step

    def move_home(self, groups: Groups) -> None:
        """Move the state if no parameter is left on its device."""
        state = self.state(groups)
        if state.words.device not in {p.device for group in groups for p in group["params"]}:
            self.forget_pending()
            state.move(_home(groups))

    def load(self, groups: Groups, counters: dict[Field, float], largest_count: int) -> None:
        """Set loaded counters and loss scale."""
        self.forget_pending()
        self.state(groups).set_counters(self._policy, counters, largest_count)

    def copied(self, states: States) -> None:
        """Renew the views, which a deepcopy or unpickling turns into separate tensors."""
        if self.device_state is not None:
            self.device_state.tensors.renew_views()
            self.device_state.tensors.bind(states)

    # Reading back to the host

    def ask(self, state: DeviceState, inputs: list[Tensor]) -> None:
        """Request an asynchronous copy of the outcome to the host; not every call makes one."""
        if self.readback is None:
            self.readback = Readback(DeviceQueue(state.words.device))
        self.readback.ask(state, inputs)

    def look_back(self, options: list[GroupOptions]) -> Seen | None:
        """What has arrived on the host from earlier steps, without waiting.

        Raises:
            RuntimeError: a step was refused; ``options`` are those of its groups.
        """
        seen = None if self.readback is None else self.readback.look()
        if seen is not None:
            self.raise_latched(seen.reading, options)
        return seen

    def read(self, groups: Groups, options: list[GroupOptions]) -> Reading:
        """Read counters and metrics; waits for the device.

        Raises:
            RuntimeError: a step was refused and the error was not yet raised.
        """
        reading = self.state(groups).read()
        self.forget_pending()
        self.raise_latched(reading, options)
        return reading

    def raise_latched(self, reading: Reading, options: list[GroupOptions]) -> None:
        """Raise the error that a step latched, if any, and clear it."""
        error = error_of(reading, self._rule, options)
        if error is not None:
            self.forget_pending()
            assert self.device_state is not None
            self.device_state.clear_error()
            raise error

    def forget_pending(self) -> None:
        """Discard pending copies to the host: they are out of date."""
        if self.readback is not None:
            self.readback.forget()


def _home(groups: Groups) -> torch.device:
    """The device of the first parameter that is not on meta; cpu if there is none."""
    params = (param for group in groups for param in group["params"])
    return next((p.device for p in params if not p.is_meta), torch.device("cpu"))

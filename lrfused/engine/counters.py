"""The counters of an optimizer: the device that has them, and what the host learns of them."""

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
    """An optimizer's `DeviceState`: made when first needed, near the parameters, read by the host.

    Its memory is the same from then on, or `DeviceState.version` tells.
    """

    def __init__(self, rule: UpdateRule, policy: LossScale | None):
        self._rule, self._policy = rule, policy
        self.device_state: DeviceState | None = None  # not before anybody needs it
        self.readback: Readback | None = None  # from the first step of which nothing is known on

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
        """Follow the parameters, if all of them went to other devices."""
        state = self.state(groups)
        if state.words.device not in {p.device for group in groups for p in group["params"]}:
            self.forget_pending()
            state.move(_home(groups))

    def load(self, groups: Groups, counters: dict[Field, float], largest_count: int) -> None:
        """Take over loaded counters and loss scale."""
        self.forget_pending()
        self.state(groups).set_counters(self._policy, counters, largest_count)

    def copied(self, states: States) -> None:
        """After a deepcopy or unpickling, which leave no view a view."""
        if self.device_state is not None:
            self.device_state.tensors.renew_views()
            self.device_state.tensors.bind(states)

    # What the host knows

    def ask(self, state: DeviceState, inputs: list[Tensor]) -> None:
        """Now and then have the decisions of a step copied to the host."""
        if self.readback is None:
            self.readback = Readback(DeviceQueue(state.words.device))
        self.readback.ask(state, inputs)

    def look_back(self, options: list[GroupOptions]) -> Seen | None:
        """What arrived of earlier steps of groups with these options, without waiting.

        Raises:
            RuntimeError: one of them was refused.
        """
        seen = None if self.readback is None else self.readback.look()
        if seen is not None:
            self.raise_latched(seen.reading, options)
        return seen

    def read(self, groups: Groups, options: list[GroupOptions]) -> Reading:
        """Everything about the steps so far; waits for the device.

        Raises:
            RuntimeError: one of them was refused, and the host did not know yet.
        """
        reading = self.state(groups).read()
        self.forget_pending()
        self.raise_latched(reading, options)
        return reading

    def raise_latched(self, reading: Reading, options: list[GroupOptions]) -> None:
        """Raise what a step latched, once."""
        error = error_of(reading, self._rule, options)
        if error is not None:
            self.forget_pending()
            assert self.device_state is not None
            self.device_state.clear_error()
            raise error

    def forget_pending(self) -> None:
        """What is on its way to the host is older than what it knows by now."""
        if self.readback is not None:
            self.readback.forget()


def _home(groups: Groups) -> torch.device:
    """Where the first parameter is that has memory."""
    params = (param for group in groups for param in group["params"])
    return next((p.device for p in params if not p.is_meta), torch.device("cpu"))

"""A training run of a scenario in a setting, and everything of it that must come out equal."""

from typing import Any

import torch
from torch import Tensor

from . import masking, settings
from .gradients import gradients, is_elsewhere
from .scenarios import BEFORE, INPUT, Options, Scenario


class Run:
    """A model and its optimizer: the one that saves, or, ``later``, one that loads."""

    def __init__(self, setting: str, scenario: Scenario, seed: int, later: bool = False):
        self.setting, self.scenario, self.seed = setting, scenario, seed
        self.whose = scenario.classes[later]
        blocks = settings.layers(scenario.blocks, seed, scenario.halved)
        self.model, self.blocks = settings.lay(setting, blocks)
        options, groups = scenario.options, scenario.groups
        if later:
            options = scenario.later_options or options
            groups = scenario.later_groups or groups
        described = [make() for make in groups]
        self.inputs = [group.pop(INPUT) for group in described if INPUT in group]
        for group, of_group in zip(described, self._by_group(groups), strict=True):
            group["params"] = of_group
        self.opt = settings.optimizer(setting, scenario.kind, self.whose, described, options())
        if later and not scenario.unmasked:
            self._set_masks(masking.present(scenario.masks, BEFORE), kept=1.0)

    def _by_group(self, groups: tuple[Options, ...]) -> list[list[Tensor]]:
        found: list[list[Tensor]] = [[] for _ in groups]
        for index, block in enumerate(self.blocks):
            found[min(index, len(groups) - 1)] += block.parameters()
        return found

    def params(self) -> list[Tensor]:
        """All parameters, in the model's order."""
        return list(self.model.parameters())

    def step(self, t: int, stream: str = "training") -> None:
        """The step after t others, with gradients of a stream and what befalls then."""
        event = self.scenario.events.get(t)
        opt = settings.inner(self.opt)
        self._set_masks(self.scenario.masks.get(t, ()), t)
        self._give_gradients(t, stream, event)
        if event == "found_inf":
            opt.found_inf = torch.tensor(1.0)
        self.opt.step()
        if event == "found_inf":
            del opt.found_inf

    def _give_gradients(self, t: int, stream: str, event: str | None) -> None:
        params, opt = self.params(), settings.inner(self.opt)
        scale = float(opt.scale(torch.ones(()))) if self.whose == "lrfused" else 1.0
        given = gradients(self.setting, params, self.seed, stream, t)
        waiting = {id(p) for p in self.blocks[-1].parameters()} if t < self.scenario.late else set()
        for param, gradient in zip(params, given, strict=True):
            factor = scale * (1000.0 if event == "large" else 1.0)
            gradient = gradient if factor == 1.0 else gradient * factor
            if event == "inf":
                gradient.view(-1)[:1] = torch.inf
            param.grad = None if id(param) in waiting or is_elsewhere(param) else gradient

    def _set_masks(self, what: tuple[str, ...], *key: Any, kept: float = 0.6) -> None:
        """Set or take away the masks of blocks, of the parameters that this rank steps."""
        opt = settings.inner(self.opt)
        mine = {id(p) for group in opt.param_groups for p in group["params"]}
        for block, does in zip(self.blocks, what, strict=False):
            params = [p for p in block.parameters() if does and id(p) in mine]
            made = masking.random_masks(self.setting, params, kept, self.seed, "masks", *key)
            if params:
                opt.set_masks(dict.fromkeys(params) if does == "take" else made)

    def write_inputs(self, value: float) -> None:
        """As a caller does who steers a schedule."""
        for tensor in self.inputs:
            tensor.fill_(value)

    def write_lr(self, lr: float) -> None:
        """As a caller does who has a schedule of his own."""
        for group in self.opt.param_groups:
            group["lr"] = lr

    def take_parameters(self, values: list[Tensor]) -> None:
        """A model's checkpoint; what is looked at is the optimizer's."""
        with torch.no_grad():
            for param, value in zip(self.params(), values, strict=True):
                settings.local(param).copy_(value)

    def parameters(self) -> list[Tensor]:
        """Copies of what this rank holds."""
        return [settings.local(p).detach().clone() for p in self.params()]

    def standing(self) -> dict[str, Any]:
        """Parameters, state and torch's keys of the groups by name.

        A parameter without an update has no state, and no class has to make one.
        """
        opt, found = settings.inner(self.opt), {}
        masks = opt.masks if self.whose == "lrfused" else {}
        for i, (param, value) in enumerate(zip(self.params(), self.parameters(), strict=True)):
            found[f"parameter {i}"] = value
            state = opt.state.get(param, {})
            for key in sorted(_shown(state)):
                found[f"{key} of parameter {i}"] = settings.local(state[key]).detach().clone()
            if param in masks and not is_elsewhere(param):
                found[f"mask of parameter {i}"] = settings.local(masks[param])
        for g, group in enumerate(opt.param_groups):
            for key in sorted(group.keys() - {"params", *carried(group)}):
                value = group[key]
                plain = tuple(value) if isinstance(value, list) else value
                found[f"{key} of group {g}"] = (
                    plain.detach().clone() if isinstance(plain, Tensor) else plain
                )
        return found

    def carried(self) -> dict[str, Any]:
        """What the next checkpoint carries in the groups beside torch's keys."""
        saved = settings.inner(self.opt).state_dict()
        return {
            f"{key} of group {g}": group[key]
            for g, group in enumerate(saved["param_groups"])
            for key in carried(group)
        }

    def metrics(self) -> dict[str, Any]:
        """Those of this class; torch's has none."""
        return settings.inner(self.opt).metrics() if self.whose == "lrfused" else {}


AVERAGE = "lrfused_average"


def _shown(state: dict[str, Any]) -> list[str]:
    """What an update has left; torch.optim.SGD has None for no buffer. Averages need no update."""
    found = {key: value for key, value in state.items() if value is not None}
    updated = found["step"] if "step" in found else any(_is_set(x) for x in found.values())
    averages = [key for key in found if key == AVERAGE and found[key].numel()]
    return list(found) if updated else averages


def _is_set(value: Any) -> bool:
    return bool(settings.local(value).any())


def carried(group: dict[str, Any]) -> list[str]:
    """The keys of a group that are this project's own."""
    return sorted(key for key in group if key.startswith("lrfused"))

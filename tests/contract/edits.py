"""Edits of ``param_groups``, and the same groups, each in an optimizer of its own."""

import copy

import torch
from lib.contract import assert_same_bits
from torch.nn import Parameter

from lrfused import schedules


def own_settings(scheduled, kind):
    """Of several groups, each with something of its own."""
    others = kind.scheduled if scheduled else kind.numbers

    def value(start, end=None):
        return schedules.linear(start, end or start / 2, 9) if scheduled else start

    return [
        {"lr": value(0.1), "weight_decay": 0.5},
        {"lr": value(0.02), "weight_decay_mode": "independent", "weight_decay": 0.01},
        {"lr": value(0.3), "clip_value": value(0.4), **others},
        {"lr": value(0.2), "agc": 0.1, "start_step": 2, **kind.carrying},
    ]


def torchs_settings(scheduled, kind):
    """The same in so far as torch has them."""
    known = kind.hyperparameters
    return [{k: v for k, v in own.items() if k in known} for own in own_settings(scheduled, kind)]


def copied(group, copier=copy.deepcopy):
    """A copy of a group with the parameters themselves."""
    others = {key: value for key, value in group.items() if key != "params"}
    return {**copier(others), "params": group["params"]}


def saved_groups(opt):
    """What a checkpoint says of the groups, to be compared."""
    return [{k: str(v) for k, v in group.items()} for group in opt.state_dict()["param_groups"]]


def clear_and_add(opt, group):
    opt.param_groups.clear()
    opt.add_param_group(group)


def rotate(opt):
    opt.param_groups.append(opt.param_groups.pop(0))


def assign(opt, groups):
    opt.param_groups = groups


def swap(opt):
    groups = opt.param_groups
    groups[0], groups[2] = groups[2], groups[0]


# Each takes an optimizer with an empty group in second place, and one more group.
EDITS = {
    "remove first": lambda opt, _: opt.param_groups.pop(0),
    "remove middle": lambda opt, _: opt.param_groups.pop(2),
    "remove last": lambda opt, _: opt.param_groups.pop(),
    "cut": lambda opt, _: opt.param_groups.__delitem__(slice(1, 3)),
    "drop empty": lambda opt, _: assign(opt, [g for g in opt.param_groups if g["params"]]),
    "clear": lambda opt, _: opt.param_groups.clear(),
    "clear and add": clear_and_add,
    "reverse": lambda opt, _: opt.param_groups.reverse(),
    "rotate": lambda opt, _: rotate(opt),
    "swap": lambda opt, _: swap(opt),
    "another list": lambda opt, _: assign(opt, opt.param_groups[::-1]),
    "copies": lambda opt, _: assign(opt, [dict(g) for g in opt.param_groups]),
    "unpacked": lambda opt, _: opt.param_groups.insert(1, {**opt.param_groups.pop()}),
    "deep copies": lambda opt, _: assign(opt, [copied(g) for g in opt.param_groups][1:]),
}


class Alone:
    """Every group in an optimizer of its own, which counts steps whether it has a part or not.

    Over whatever backend is the quickest: all have the same bits.
    """

    def __init__(self, kind, settings, values):
        self.kind = kind
        self.params = [Parameter(value.clone()) for value in values]
        self.opts = []
        for param, own in zip(self.params, settings, strict=True):
            ticking = {"params": [Parameter(torch.zeros(1))]}
            self.opts.append(kind.ours([{"params": [param], **own}, ticking]))

    def step(self, gradients, is_in):
        """One of all; ``is_in`` says which parameters have a part."""
        for opt, param, gradient, has_part in zip(
            self.opts, self.params, gradients, is_in, strict=True
        ):
            param.grad = gradient.clone() if has_part else None
            opt.param_groups[1]["params"][0].grad = torch.ones(1)
            opt.step()


class Edited:
    """An optimizer over groups of one parameter each, and beside them an empty one."""

    def __init__(self, rng, kind, settings, backend="auto", is_ours=True):
        values = [torch.randn(7, 3, generator=rng.torch) for _ in range(len(settings))]
        self.rng, self.params = rng, [Parameter(value.clone()) for value in values]
        self.groups = [{"params": [p], **s} for p, s in zip(self.params, settings, strict=True)]
        *first, self.more = self.groups
        groups = [first[0], {"params": []}, *first[1:]]
        self.opt = kind.ours(groups, backend=backend) if is_ours else kind.theirs(groups)
        self.alone = Alone(kind, settings, values) if is_ours else None

    @property
    def is_in(self):
        """Which of the parameters stand in the list."""
        ids = {id(p) for group in self.opt.param_groups for p in group["params"]}
        return [id(param) in ids for param in self.params]

    def write(self, settings, step):
        """By hand what the schedules are at a step, into the groups of an optimizer of torch's."""
        own = {id(p): settings for p, settings in zip(self.params, settings, strict=True)}

        def at(value):
            if isinstance(value, tuple):
                return tuple(map(at, value))
            return value(step) if isinstance(value, schedules.Schedule) else value

        for group in self.opt.param_groups:
            for p in group["params"]:
                group.update({key: at(value) for key, value in own[id(p)].items()})

    def step(self, steps=1, *others):
        """Steps of the optimizer, of its groups alone, and of others of this kind."""
        for _ in range(steps):
            shape = self.params[0].shape
            gradients = [torch.randn(shape, generator=self.rng.torch) for _ in self.params]
            for one in (self, *others):
                for param, gradient in zip(one.params, gradients, strict=True):
                    param.grad = gradient.clone()
                one.opt.step()
            if self.alone is not None:
                self.alone.step(gradients, self.is_in)

    def assert_right(self):
        """In every bit what the groups alone have come to."""
        assert_same_bits(self.params, self.alone.params)
        for param, twin, opt in zip(self.params, self.alone.params, self.alone.opts, strict=True):
            for key, theirs in opt.state.get(twin, {}).items():
                assert torch.equal(self.opt.state[param][key], theirs), key

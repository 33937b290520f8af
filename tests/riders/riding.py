"""Runs with riders: random masks, averages by group, and what they are compared with."""

import torch
from lib.runs import Run, advance, start


def random_mask(rng, value, kept=0.6):
    """True for about so many elements; at times for all or for none."""
    share = rng.numpy.choice([0.0, kept, kept, kept, 1.0])
    return torch.rand(value.shape, generator=rng.torch) < share


def random_masks(rng, values, masked=0.7):
    """By place: some parameters have none."""
    return {
        i: random_mask(rng, value) for i, value in enumerate(values) if rng.numpy.random() < masked
    }


def set_masks(run: Run, masks) -> None:
    """Masks by the parameter's place."""
    run.opt.set_masks({run.params[i]: mask for i, mask in masks.items()})


def shown(metrics) -> list[str]:
    """All but the share of tiny gradients: masked elements are not counted among, zeros are."""
    return [repr({k: v for k, v in one.items() if k != "tiny_gradients"}) for one in metrics]


def run_masked(problem, masks, backend="reference", **options) -> Run:
    """All steps of a problem with masks from the start."""
    started = start(problem.values, backend, **options)
    set_masks(started, masks)
    for gradients in problem.gradients:
        advance(started, gradients)
    return started

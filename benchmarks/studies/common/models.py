"""Small models and what is measured on them."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


def mlp(
    sizes: Sequence[int], activation: type[nn.Module] = nn.ReLU, *, gain: float | None = None
) -> nn.Sequential:
    """Linear layers of these widths with an activation between them.

    With a gain the weights are that many times He's, and the biases 0; else both are torch's.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), activation()]
    if gain is not None:
        for layer in layers[::2]:
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
            layer.weight.data *= gain
    return nn.Sequential(*layers[:-1])


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """The share of samples whose largest logit is the right one, in eval mode."""
    was_training = model.training
    model.eval()
    correct = (model(x).argmax(-1) == y).float().mean().item()
    model.train(was_training)
    return correct

"""Layer-wise schedules: deep layers whose learning rate decays more slowly reach a lower loss.

All D + 1 layers start at one peak and end at 0; s_d is the mean of layer d's learning rate over the
run, in units of the peak, and grows with the depth d:

    eta_d(t) = peak (1 - t / T) ^ (1 / s_d - 1),     mean over t of eta_d = s_d peak

Claim: after T updates, the training loss of a convolutional net on digits is lower than in the
reverse order (shallow layers decay more slowly), and lower than with the mean of s_d, 1/2, for all
layers. In all three the mean over layers and time is the same.

Control: the layers stand side by side, as branches whose outputs are summed. Depth is then a mere
number, and the order must make no difference.

What holds: the order matters, but not because of the depth, and no order is better than the same
schedule for all by as much as 10%. Adam moves every weight by about the learning rate, so a slower
decay helps where most of the weights are. In the convolutional net that is the last layer. In the
fully connected one, narrower from layer to layer, it is the first, and deep layers that decay more
slowly are worse than both others. With s_d shifted so that the mean over weights instead of layers
is 1/2, they are worse in the convolutional net, too.
"""

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

import lrfused
from lrfused import groups, schedules

from .common import data, plotting
from .common.models import mlp
from .common.statistics import Statement, absent, instead, larger
from .common.study import Result, collect, measured
from .common.training import batches, places, thinned, train

PROBLEM, SEEDS = 3176521, 16
SWAPPED = ORDERED = ("deep layers slower", "shallow layers slower")
STEPS, BATCH, PEAK, PIXELS, CLASSES, PARTS = 150, 32, 0.01, 64, 10, 25
SHARES = {"deep layers slower": (0.3, 0.7), "same": (0.5, 0.5), "shallow layers slower": (0.7, 0.3)}
MARGIN = 0.1  # of the logarithm of the loss: 10%


class SideBySide(nn.Sequential):
    """The sum of the outputs of all children."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([branch(x) for branch in self]).sum(0)


def convolutional() -> nn.Module:
    """Two convolutions and an output layer, which holds more than half of the weights."""
    first = nn.Conv2d(1, 12, 3, stride=2, padding=1)
    second, last = nn.Conv2d(12, 12, 3, padding=1), nn.Linear(12 * 16, CLASSES)
    image = nn.Unflatten(1, (1, 8, 8))
    return nn.Sequential(image, first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), last)


def fully_connected() -> nn.Module:
    """Three layers, of which the first holds more than half of the weights."""
    return mlp([PIXELS, 64, 32, CLASSES])


def side_by_side() -> nn.Module:
    return SideBySide(*(mlp([PIXELS, 48, CLASSES]) for _ in range(4)))


NETS = {
    "convolutional": convolutional,
    "convolutional, mean over weights": convolutional,
    "fully connected": fully_connected,
    "control": side_by_side,
}


def recipe(model, peak, steps, shares):
    """shares: by depth, the mean of the lr over the run in units of the peak."""
    lr = [schedules.polynomial(peak, 0.0, steps, power=1 / share - 1) for share in shares]
    return lrfused.AdamW(groups.layerwise(model, lr))


def run(seeds: list[int], device: torch.device) -> Result:
    rows, curves = [], {arm: [] for arm in SHARES}
    for seed in seeds:
        row = {arm: {} for arm in SHARES}
        for arm in SHARES:
            for net in NETS:
                row[arm][net], losses = trained(net, arm, seed, device)
                if net == "convolutional":
                    curves[arm].append(thinned(losses, PARTS))
        rows.append(row)
    return {"arms": collect(rows), "places": places(STEPS, PARTS), "curves": curves}


def trained(net: str, arm: str, seed: int, device: torch.device) -> tuple[float, list[float]]:
    """The logarithm of the loss on all training samples at the end, and the loss of each batch."""
    torch.manual_seed(seed)
    model = NETS[net]().to(device)
    digits = data.digits()
    x, y = digits.x.to(device), digits.y.to(device)
    indices = batches(len(x), BATCH, STEPS, seed).to(device)
    opt = recipe(model, PEAK, STEPS, shares(model, *SHARES[arm], by_weight="weights" in net))

    def loss(step: int) -> Tensor:
        return F.cross_entropy(model(x[indices[step]]), y[indices[step]])

    losses = train(opt, loss, STEPS)
    with torch.no_grad():
        return F.cross_entropy(model(x), y).log().item(), losses


def shares(model: nn.Module, first: float, last: float, *, by_weight: bool) -> list[float]:
    """Evenly from the first layer's to the last; the mean over layers or weights is 1/2."""
    layers = groups.layerwise(model, 1.0)
    found = torch.linspace(first, last, len(layers))
    if by_weight:
        sizes = torch.tensor([float(sum(p.numel() for p in layer["params"])) for layer in layers])
        found = found + 0.5 - (sizes * found).sum() / sizes.sum()
    return found.tolist()


def check(result: Result) -> list[Statement]:
    deep, same, reverse = measured(result, *SHARES)
    gain = {net: reverse[net] - deep[net] for net in NETS}
    net, by_weight, unit = "convolutional", "convolutional, mean over weights", "log of the loss"
    return [
        larger(
            "lower loss than in the reverse order, convolutional", gain[net], than=MARGIN, unit=unit
        ),
        larger(
            "lower loss than with the same for all, convolutional",
            same[net] - deep[net],
            than=MARGIN,
            unit=unit,
        ),
        instead(
            "higher loss than in the reverse order, fully connected",
            -gain["fully connected"],
            than=MARGIN,
            unit=unit,
        ),
        instead(
            "higher loss than in reverse, convolutional, equal mean over weights",
            -gain[by_weight],
            than=MARGIN,
            unit=unit,
        ),
        absent("no difference side by side", gain["control"], within=MARGIN, unit=unit),
    ]


def main_panel(axes: Axes, result: Result) -> None:
    logarithms = {arm: np.log(losses) for arm, losses in result["curves"].items()}
    for number, arm in enumerate(ORDERED):
        against_same = logarithms[arm] - logarithms["same"]
        plotting.curve(axes, result["places"], against_same, arm, number)
    axes.axhline(0.0, color=plotting.MARGIN_COLOR, linestyle="--", label="same for all")
    plotting.labelled(axes, "convolutional net", "step", "log of (batch loss / same for all)")


def order_panel(axes: Axes, result: Result) -> None:
    arms = dict(zip(SHARES, measured(result, *SHARES), strict=True))
    labels = ["conv.", "conv.,\nby weight", "fully\nconnected", "control"]
    against_same = {arm: [arms[arm][net] - arms["same"][net] for net in NETS] for arm in ORDERED}
    plotting.bars(axes, labels, against_same)
    axes.axhline(0.0, color=plotting.MARGIN_COLOR, linestyle="--")
    title, ratio = "after training, all samples", "log of (loss / same for all)"
    plotting.labelled(axes, title, "net", ratio, legend=False)


def plot(result: Result) -> Figure:
    return plotting.figure(result, main_panel, order_panel)

"""Temperature: a learning rate in step keeps updates steady if the network changes little.

InfoNCE compares two views z, z' of the same images by their cosines over a temperature tau_t, which
is annealed. Its gradient has the factor 1 / tau_t, which a learning rate in step cancels:

    loss = - log (exp(z_i z'_i / tau_t) / sum_j exp(z_i z'_j / tau_t))
    grad = (1 / tau_t) sum_j (p_ij - [i = j]) z'_j
    eta_t = eta_0 tau_t / tau_0

Claim: in step, the size of updates varies less than with a constant eta_0. The size is that of the
change of all parameters; how much it varies is the standard deviation of its log2, averaged over
twentieths of the run, without the first tenth, in which the momentum builds up. Views are digits,
shifted and noisy, and tau falls from 1 to 0.05. It is claimed for a low learning rate, 0.003, with
which the network changes less while the temperature falls, and for a high one, 0.3.

Control: AdamW divides by the size of gradients, and a temperature that falls must not change how
much its updates vary, compared with a constant one.

What holds: at 0.003 the claim, at 0.3 the contrary. The loss sees only directions, so that its
gradient by an output h has the factor 1 / (tau_t |h|), and is perpendicular to h. Large updates
therefore make outputs longer, by several octaves at 0.3, and |h| grows in place of a learning rate
that falls. If that falls as well, updates shrink.
"""

import math

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parameters_to_vector

import lrfused
from lrfused import schedules

from .common import data, models, plotting
from .common.statistics import Statement, absent, instead, larger
from .common.study import Result, collect, measured
from .common.training import batches, places, stream, thinned

PROBLEM, SEEDS = 3176530, 12
CONSTANT, IN_STEP = "constant lr", "lr in step"
SWAPPED = (CONSTANT, IN_STEP)
STEPS, BATCH, NOISE, POINTS = 160, 64, 0.3, 40
TAU = schedules.exponential(1.0, 0.05, STEPS)
SLOW, FAST, ADAM_LR = 0.003, 0.3, 3e-3


def recipe(params, lr, tau):
    """loss = info_nce(views, tau(opt.known_step)): the loss and the step see the same value.
    A learned temperature is schedules.input(tensor, "tau")."""
    return lrfused.SGD(params, lr=lr * tau / tau(0), momentum=0.9)


def run(seeds: list[int], device: torch.device) -> Result:
    rows, curves = [], {name: {CONSTANT: [], IN_STEP: []} for name in ("slow", "fast")}
    for seed in seeds:
        row = {CONSTANT: {}, IN_STEP: {}, "AdamW": {}}
        for name, lr in (("slow", SLOW), ("fast", FAST)):
            for arm in (CONSTANT, IN_STEP):
                model = network(seed).to(device)
                sgd = lrfused.SGD(model.parameters(), lr=lr, momentum=0.9)
                opt = recipe(model.parameters(), lr, TAU) if arm == IN_STEP else sgd
                before, sizes = length(model), trained(model, opt, TAU, seed)
                row[arm][name] = variation(sizes)
                row[arm][f"{name} length"] = length(model) - before
                curves[name][arm].append(thinned(sizes, POINTS))
        for name, tau in (("falling", TAU), ("constant", schedules.constant(TAU(0)))):
            model = network(seed).to(device)
            adam = lrfused.AdamW(model.parameters(), lr=ADAM_LR, weight_decay=0.0)
            row["AdamW"][name] = variation(trained(model, adam, tau, seed))
        rows.append(row)
    return {"arms": collect(rows), "places": places(STEPS, POINTS), "curves": curves}


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return models.mlp([64, 64, 32])


def trained(
    model: nn.Module, opt: lrfused.FusedOptimizer, tau: schedules.Schedule, seed: int
) -> list[float]:
    """log2 of the size of every update."""
    x = data.digits().x
    generator = stream(seed, "views")
    before, sizes = parameters_to_vector(model.parameters()).detach(), []
    for rows in batches(len(x), BATCH, STEPS, seed):
        first, second = (view(x[rows], generator).to(before.device) for _ in range(2))
        loss = info_nce(model(first), model(second), tau(opt.known_step))
        opt.zero_grad()
        loss.backward()
        opt.step()
        after = parameters_to_vector(model.parameters()).detach()
        sizes.append(math.log2((after - before).norm().item()))
        before = after
    return sizes


def view(x: Tensor, generator: torch.Generator) -> Tensor:
    """The images moved by up to a pixel in each direction, with noise."""
    shift = (torch.randint(3, (2,), generator=generator) - 1).tolist()
    moved = torch.roll(x.view(-1, 8, 8), shift, (1, 2)).reshape(x.shape)
    return moved + NOISE * torch.randn(x.shape, generator=generator)


def info_nce(first: Tensor, second: Tensor, tau: float) -> Tensor:
    cosines = functional.normalize(first) @ functional.normalize(second).T
    return functional.cross_entropy(cosines / tau, torch.arange(len(first), device=first.device))


def variation(sizes: list[float]) -> float:
    """The standard deviation of the smoothed curve, in octaves, without the first tenth."""
    return float(f"{np.std(thinned(sizes, 20)[2:]):.6g}")


@torch.no_grad()
def length(model: nn.Module) -> float:
    """log2 of the mean length of the outputs."""
    x = data.digits().test_x.to(next(model.parameters()).device)
    return math.log2(model(x).norm(dim=1).mean().item())


def check(result: Result) -> list[Statement]:
    constant, in_step, adam = measured(result, CONSTANT, IN_STEP, "AdamW")
    slow, fast = (constant[name] - in_step[name] for name in ("slow", "fast"))
    longer = constant["fast length"] - constant["slow length"]
    control = adam["falling"] - adam["constant"]
    return [
        larger("0.003: in step is steadier", slow, than=0.2, unit="octaves"),
        larger("0.3: in step is steadier", fast, than=0.2, unit="octaves"),
        instead("0.3: constant is steadier", -fast, than=0.2, unit="octaves"),
        instead("0.3: longer outputs than 0.003", longer, than=2.0, unit="octaves"),
        absent("AdamW: falling or constant tau", control, within=0.2, unit="octaves"),
    ]


def main_panel(axes: Axes, result: Result) -> None:
    for number, (name, arms) in enumerate(result["curves"].items()):
        for arm, style in ((CONSTANT, "-"), (IN_STEP, "--")):
            label = f"{FAST if name == 'fast' else SLOW}, {arm}"
            plotting.curve(axes, result["places"], arms[arm], label, number, linestyle=style)
    axes.set_ylim(-11.0, 6.0)  # room for the legend
    plotting.labelled(axes, "tau falls from 1 to 0.05", "step", "log2 of the size of the update")


def variation_panel(axes: Axes, result: Result) -> None:
    arms = result["arms"]
    found = {arm: [arms[arm][name] for name in ("slow", "fast")] for arm in (CONSTANT, IN_STEP)}
    axes.set_ylim(0.0, 1.1)  # room for the legend
    plotting.bars(axes, [f"lr = {SLOW}", f"lr = {FAST}"], found)
    plotting.labelled(axes, "how much updates vary", "", "standard deviation (octaves)")


def plot(result: Result) -> Figure:
    return plotting.figure(result, main_panel, variation_panel)

"""The second moment: its bias has nothing to do with the learning rate, so no warmup cures it.

Adam's average v of squared gradients starts at 0. If the gradients are stationary, it is too small
by a factor of beta2 and t alone, and the steps, divided by its root, are too large:

    v_t = beta2 v_(t-1) + (1 - beta2) g_t^2
    E[v_t] = (1 - beta2^t) E[g^2],     step = eta_t m_t / sqrt(v_t)

Claim: bias correction and warmup are two mechanisms for two problems. Without the correction of v
the first steps are too large for their lr, as much in a warmup as without one; with it they are
right in both. The error is |log(step / ideal step)|, the ideal one with E[g^2] in place of v. As
the correction is a factor on the lr, a Schedule can undo it. If beta2 is a Schedule itself, the
factor has the product of its values (`bias_correction="product"`), and torch's power is wrong.

These gradients are noise about a fixed mean. Those of a network on digits are not stationary: at
first they grow as it learns, and so v is smaller in a warmup. This is the gradients' doing: as a
share of the mean of g_1^2 to g_t^2, v is the same in the first steps with and without a warmup.

Control: after 500 steps 1 - beta2^t is above 0.99, and the correction must make no difference.
"""

import math
from collections import defaultdict

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import cross_entropy

import lrfused
from lrfused import schedules

from .common import data, models, plotting
from .common.statistics import Statement, Values, absent, agrees, larger
from .common.study import Result, collect, measured
from .common.training import batches, places, stream, thinned, train

PROBLEM, SEEDS = 3096925, 10
SWAPPED = ("uncorrected", "corrected")
STEPS, EARLY, LATE, COUNT, PEAK, BATCH = 600, 20, 500, 1000, 3e-3, 32
WARMUPS = {"no warmup": 1, "warmup": 100}  # steps; 1 is none
SHOWN, POINTS = 100, 50  # steps of the curves, and places in them
BETAS, RISING = (0.9, 0.99), schedules.linear(0.9, 0.999, 50)
SQUARE = 2.0  # E[g^2] where gradients have mean 1 and variance 1
MARGIN = 0.25  # of the error: steps are too large or too small by a quarter


def recipe(params, peak, warmup_steps, betas, corrected):
    """Adam with or without its correction of v, which is no more than a factor on the lr."""
    lr = schedules.warmup_constant(peak, warmup_steps, start="1/n")
    if not corrected:
        lr = lr / schedules.sqrt(1.0 - betas[1] ** (schedules.step + 1.0))
    return lrfused.AdamW(params, lr=lr, betas=betas, weight_decay=0.0)


def run(seeds: list[int], device: torch.device) -> Result:
    rows, moments = [], []
    curves: dict[str, list[list[float]]] = defaultdict(list)

    def keep(name: str, values: Values) -> None:
        curves[name].append(thinned(values[:SHOWN], POINTS))

    for seed in seeds:
        row, moment = {arm: {} for arm in SWAPPED}, {}
        for name, warmup_steps in WARMUPS.items():
            for arm in SWAPPED:
                errors, share = stationary(warmup_steps, arm, seed, device)
                row[arm][name] = size(errors[:EARLY])
                row[arm][f"late, {name}"] = size(errors[LATE:])
                keep(f"{arm}, {name}", np.exp(errors))
            moment[f"share, {name}"] = float(share[:EARLY].mean())
            keep(f"v, {name}", share)
            share, v = digits(warmup_steps, seed, device)
            moment[f"share of digits', {name}"] = float(share[:EARLY].mean())
            moment[f"log v of digits, {name}"] = float(np.log(v[:SHOWN]).mean())
            keep(f"v of digits, {name}", share)
        for arm in SWAPPED:
            row[arm]["rising beta2"] = size(rising(arm, seed, device))
        rows.append(row)
        moments.append(moment)
    by_name = {name: [each[name] for each in moments] for name in moments[0]}
    return {
        "arms": collect(rows),
        "moments": by_name,
        "curves": dict(curves),
        "places": places(SHOWN, POINTS),
    }


def size(errors: Values) -> float:
    return float(np.abs(errors).mean())


def stationary(
    warmup_steps: int, arm: str, seed: int, device: torch.device
) -> tuple[Values, Values]:
    """Errors of the steps, and v / E[g^2], by step, where gradients are noise about 1."""
    w = torch.nn.Parameter(torch.zeros(COUNT, device=device))
    opt = recipe([w], PEAK, warmup_steps, BETAS, arm == "corrected")
    lr = schedules.warmup_constant(PEAK, warmup_steps, start="1/n")
    return step_errors(opt, w, lr, STEPS, seed)


def rising(arm: str, seed: int, device: torch.device) -> Values:
    """The same where beta2 is a Schedule, and the correction a power, or the product, of it."""
    w = torch.nn.Parameter(torch.zeros(COUNT, device=device))
    betas, mode = (BETAS[0], RISING), "product" if arm == "corrected" else "power"
    opt = lrfused.AdamW([w], lr=PEAK, betas=betas, weight_decay=0.0, bias_correction=mode)
    return step_errors(opt, w, schedules.constant(PEAK), SHOWN, seed)[0]


def step_errors(
    opt: lrfused.AdamW, w: torch.nn.Parameter, lr: schedules.Schedule, steps: int, seed: int
) -> tuple[Values, Values]:
    generator = stream(seed, "gradients")
    gradients = (1.0 + torch.randn(steps, COUNT, generator=generator)).to(w.device)
    errors, shares, before = [], [], w.detach().clone()

    def after(step: int) -> None:
        state = opt.state[w]
        m = state["exp_avg"] / (1.0 - BETAS[0] ** (step + 1))
        ideal = lr(step) * m.norm() / SQUARE**0.5
        errors.append(math.log((w.detach() - before).norm() / ideal))
        shares.append(state["exp_avg_sq"].mean().item() / SQUARE)
        before.copy_(w.detach())

    train(opt, lambda step: (gradients[step] * w).sum(), steps, after=after)
    return np.array(errors), np.array(shares)


def digits(warmup_steps: int, seed: int, device: torch.device) -> tuple[Values, Values]:
    """v as a share of the mean of g^2 so far, and v, by step, summed over a network."""
    samples = data.digits()
    x, y = samples.x.to(device), samples.y.to(device)
    torch.manual_seed(seed)
    model = models.mlp((64, 32, 10)).to(device)
    params, indices = list(model.parameters()), batches(len(x), BATCH, SHOWN, seed).to(device)
    opt = recipe(params, PEAK, warmup_steps, BETAS, True)
    squares, moments = [], []

    def after(step: int) -> None:
        squares.append(sum(p.grad.square().sum().item() for p in params))
        moments.append(sum(opt.state[p]["exp_avg_sq"].sum().item() for p in params))

    def loss(step: int) -> Tensor:
        return cross_entropy(model(x[indices[step]]), y[indices[step]])

    train(opt, loss, SHOWN, after=after)
    means = np.cumsum(squares) / np.arange(1, SHOWN + 1)
    return np.array(moments) / means, np.array(moments)


def check(result: Result) -> list[Statement]:
    without, corrected = measured(result, "uncorrected", "corrected")
    error = {name: without[name] - corrected[name] for name in without}
    found = {name: np.asarray(values) for name, values in result["moments"].items()}
    expected = float(np.mean([1.0 - BETAS[1] ** t for t in range(1, EARLY + 1)]))
    shares = {
        "v / E[g^2] in a warmup, less 1 - beta2^t": found["share, warmup"] - expected,
        "v / E[g^2], changed by a warmup": found["share, no warmup"] - found["share, warmup"],
        "v / mean of g^2, changed by it, digits": found["share of digits', no warmup"]
        - found["share of digits', warmup"],
    }
    follows = found["log v of digits, no warmup"] - found["log v of digits, warmup"]
    log, late = "log of a step's size", error["late, warmup"]
    return [
        larger("error of the first steps, no warmup", error["no warmup"], than=MARGIN, unit=log),
        larger("error of the first steps, warmup", error["warmup"], than=MARGIN, unit=log),
        larger("error while beta2 rises", error["rising beta2"], than=MARGIN, unit=log),
        *(agrees(text, values, within=0.01, unit="1") for text, values in shares.items()),
        absent("error after 500 steps", late, within=0.01, unit=log),
        larger("v of digits is smaller in a warmup", follows, than=0.1, unit="log v"),
    ]


def main_panel(axes: Axes, result: Result) -> None:
    _pairs(axes, result, {arm: arm for arm in SWAPPED})
    plotting.labelled(axes, "size of a step", "step", "step / ideal step")


def moment_panel(axes: Axes, result: Result) -> None:
    _pairs(axes, result, {"v": "stationary", "v of digits": "digits"})
    formula = [1.0 - BETAS[1] ** (step + 1.0) for step in result["places"]]
    axes.plot(result["places"], formula, ":", color=plotting.COLORS[5], label="1 - beta2^t")
    plotting.labelled(axes, "v without correction", "step", "v / mean of g^2")


def _pairs(axes: Axes, result: Result, names: dict[str, str]) -> None:
    """Dashes over lines: the warmup changes nothing."""
    number = 0
    for name, text in names.items():
        for warmup, line in zip(WARMUPS, ("-", "--"), strict=True):
            curves, label = result["curves"][f"{name}, {warmup}"], f"{text}, {warmup}"
            plotting.curve(axes, result["places"], curves, label, number, linestyle=line)
            number += 1


def plot(result: Result) -> Figure:
    return plotting.figure(result, main_panel, moment_panel)

"""Warmup length from the initialisation: it is safe, but far from the shortest.

Lambda bounds the largest eigenvalue of the Hessian by the statistics of the initial weights, here
Kaiming's. The warmup is the shortest that keeps gradient descent below its limit all the time:

    T_w = 1 if eta_max Lambda < 2, else the smallest with eta(t) Lambda < 2 for all t
    eta(t) = eta_max min((t + 1) / T_w, 1)

Claim: with T_w steps of warmup the training is stable, where it is not without one, and T_w is the
shortest warmup with which it is (the shortest stable one is more than half as long). The task is a
network on digits in whole batches; in a stable run the loss is never 5% above an earlier one.
(Without a warmup it rises much more, and recovers.)

What holds: T_w is safe, and in a run of 150 steps more than a hundred times too long. Lambda
multiplies the largest that each factor of the Hessian can be, and comes to many times the
eigenvalue at the start; and while the eigenvalue falls in training, a constant Lambda does not. So
T_w reaches beyond the run, the lr is 2 / Lambda at its end, and the network learns little. What
decides is the same condition with the eigenvalue itself: in the shortest stable run, found by
bisection, eta lambda_max comes to about 2, and in that with T_w nowhere near.

Control: with eta_max Lambda < 2, T_w is 1, and without any warmup the loss must not rise.
"""

import math
from collections import defaultdict

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import lrfused
from lrfused import analysis, schedules

from .common import data, models, plotting
from .common.statistics import Statement, Values, absent, instead, larger
from .common.study import Result, collect, measured
from .common.training import places, stream, thinned, train

PROBLEM, SEEDS = 3143326, 12
SWAPPED = ("no warmup", "warmup")
STEPS, SAMPLES, PEAK = 150, 128, 1.0
BELOW = 1.9  # eta_max Lambda of the control
RISE = 0.05  # of the logarithm of the loss above an earlier one: a stable run has less
EVERY, POINTS = 10, 50  # steps between two measurements of lambda; points of a curve
RUNS = {"no warmup": "no warmup", "warmup": "T_w of Lambda", "shortest": "shortest stable"}


def recipe(model, peak, total_steps):
    """The warmup length from the initial weights alone, and gradient descent with it."""
    bound = analysis.hessian_bound(model)
    warmup_steps = schedules.minimum_warmup_steps(peak, bound, total_steps)
    lr = schedules.warmup_constant(peak, warmup_steps, start="1/n")
    return warmup_steps, lrfused.SGD(model.parameters(), lr=lr)


class Task:
    """Some digits, and the network's initialisation."""

    def __init__(self, seed: int, device: torch.device):
        samples, self.seed, self.device = data.digits(), seed, device
        generator = stream(seed, "digits")
        rows = torch.randint(len(samples.x), (SAMPLES,), generator=generator)
        x = (samples.x - samples.x.mean()) / samples.x.std()
        self.x, self.y = x[rows].to(device), samples.y[rows].to(device)

    def model(self) -> nn.Module:
        torch.manual_seed(self.seed)
        return models.mlp((64, 32, 10), gain=1.0).to(self.device)

    def loss(self, model: nn.Module) -> Tensor:
        return cross_entropy(model(self.x), self.y)

    def train(self, model: nn.Module, opt: lrfused.SGD) -> list[float]:
        return train(opt, lambda step: self.loss(model), STEPS, ceiling=1e4)

    def with_warmup(self, peak: float, warmup_steps: int) -> list[float]:
        """The losses of gradient descent with a warmup of this length; 1 is none."""
        model, lr = self.model(), schedules.warmup_constant(peak, warmup_steps, start="1/n")
        return self.train(model, lrfused.SGD(model.parameters(), lr=lr))

    def products(self, warmup_steps: int) -> list[float]:
        """eta lambda at every tenth step of such a run."""
        model, lr = self.model(), schedules.warmup_constant(PEAK, warmup_steps, start="1/n")
        params, found = list(model.parameters()), []

        def loss(step: int) -> Tensor:
            if step % EVERY == 0:
                sharpest = analysis.largest_eigenvalue(
                    lambda: self.loss(model), params, tolerance=0.01
                )
                found.append(lr(step) * sharpest.value)
            return self.loss(model)

        train(lrfused.SGD(params, lr=lr), loss, STEPS)
        return found


def rises(losses: list[float]) -> Values:
    """The log of each loss by the least so far."""
    return np.log(np.asarray(losses) / np.minimum.accumulate(losses))


def rise(losses: list[float]) -> float:
    return float(rises(losses).max())


def shortest(task: Task, longest: int) -> int:
    """The shortest warmup of a stable run within 10%, by bisection of its logarithm."""
    unstable, stable = 1, longest
    while stable > 1.1 * unstable + 1.0:
        middle = round(math.sqrt(unstable * stable))
        if rise(task.with_warmup(PEAK, middle)) < RISE:
            stable = middle
        else:
            unstable = middle
    return stable


def run(seeds: list[int], device: torch.device) -> Result:
    rows, lengths = [], []
    curves: dict[str, list[list[float]]] = defaultdict(list)
    for seed in seeds:
        task = Task(seed, device)
        low = BELOW / analysis.hessian_bound(task.model())
        warmup_steps, losses = with_recipe(task, PEAK)
        runs = {"no warmup": task.with_warmup(PEAK, 1), "warmup": losses}
        control = {"no warmup": task.with_warmup(low, 1), "warmup": with_recipe(task, low)[1]}
        row = {arm: {"rise": rise(runs[arm]), "control": rise(control[arm])} for arm in SWAPPED}
        rows.append(row)

        enough = shortest(task, warmup_steps)
        runs["shortest"] = task.with_warmup(PEAK, enough)
        products = {"warmup": task.products(warmup_steps), "shortest": task.products(enough)}
        lengths.append(
            {
                "T_w": warmup_steps,
                "shortest": enough,
                "largest eta lambda": max(products["shortest"]),
                "Lambda / lambda": BELOW / low * PEAK / enough / products["shortest"][0],
                "last loss, T_w": runs["warmup"][-1],
                "last loss, shortest": runs["shortest"][-1],
            }
        )
        for name, values in runs.items():
            curves[f"loss, {name}"].append(thinned(np.log10(values), POINTS))
            curves[f"rise, {name}"].append(thinned(rises(values), POINTS))
        for name, values in products.items():
            curves[f"eta lambda, {name}"].append(thinned(values))
    by_name = {name: [each[name] for each in lengths] for name in lengths[0]}
    return {"arms": collect(rows), "lengths": by_name, "curves": dict(curves)}


def with_recipe(task: Task, peak: float) -> tuple[int, list[float]]:
    model = task.model()
    warmup_steps, opt = recipe(model, peak, STEPS)
    return warmup_steps, task.train(model, opt)


def check(result: Result) -> list[Statement]:
    without, warmup = measured(result, "no warmup", "warmup")
    found = {name: np.asarray(values) for name, values in result["lengths"].items()}
    share = found["shortest"] / found["T_w"]
    lost = np.log10(found["last loss, T_w"] / found["last loss, shortest"])
    prevented = without["rise"] - warmup["rise"]
    control, edge = without["control"], found["largest eta lambda"]
    return [
        larger("rise of the loss that T_w prevents", prevented, than=RISE, unit="log of loss"),
        larger("shortest stable warmup / T_w", share, than=0.5, unit="1"),
        instead("orders by which T_w is longer", -np.log10(share), than=1.0, unit="log10"),
        instead("orders by which its last loss is larger", lost, than=0.5, unit="log10"),
        instead("largest eta lambda_max of the shortest", edge, than=1.5, unit="1"),
        instead("Lambda / lambda_max at the start", found["Lambda / lambda"], than=5.0, unit="1"),
        absent("rise, eta_max Lambda < 2", control, within=RISE, unit="log of loss"),
    ]


def main_panel(axes: Axes, result: Result) -> None:
    for number, (name, text) in enumerate(RUNS.items()):
        curves = result["curves"][f"rise, {name}"]
        plotting.curve(axes, places(STEPS, POINTS), curves, text, number)
    plotting.labelled(axes, "stability", "step", "log of loss / least so far")


def loss_panel(axes: Axes, result: Result) -> None:
    for number, (name, text) in enumerate(RUNS.items()):
        curves = result["curves"][f"loss, {name}"]
        plotting.curve(axes, places(STEPS, POINTS), curves, text, number)
    plotting.labelled(axes, "training", "step", "log10 of the loss", legend=False)


def product_panel(axes: Axes, result: Result) -> None:
    for number, (name, text) in enumerate(RUNS.items()):
        if name != "no warmup":
            curves = result["curves"][f"eta lambda, {name}"]
            plotting.curve(axes, range(0, STEPS, EVERY), curves, text, number)
    axes.axhline(2.0, color=plotting.MARGIN_COLOR, linestyle="--")
    plotting.labelled(axes, "curvature (dashes: limit)", "step", "eta lambda_max", legend=False)


def plot(result: Result) -> Figure:
    return plotting.figure(result, main_panel, loss_panel, product_panel)

"""Momentum as a difference equation: its roots say when a warmup diverges, and how fast.

Along an eigenvector of a quadratic with eigenvalue lambda, SGD with momentum b moves by

    x[t+1] = (1 + b - eta_t lambda) x[t] - b x[t-1],     eta_t = eta_0 t / T
    roots z of z^2 - (1 + b - eta_t lambda) z + b = 0,   zeta(t) their damping ratio

Claim: with a peak eta_0 beyond the limit, where a root is larger than 1, a constant lr diverges at
once, and the linear warmup keeps x underdamped, so that it shrinks, until eta_t itself crosses the
limit 2 (1 + b) / lambda. That step is the roots', not that of gradient descent, 2 / lambda. Each
seed has 16 curvatures, with limits of 1/1.6 to 1/1.1 of the peak, and its own b. The damping ratio
and the growth after the crossing are predicted by `analysis.momentum_dynamics`, and measured: zeta
from four x in a row, which determine both coefficients of the equation, growth as that of log |x|.

The equation is exact for a constant lr. With eta_t = eta_0 t / T, SGD acts like a momentum of
b eta_t / eta_(t-1) = b t / (t - 1): only in the first steps is this much more than b, so zeta is
compared after the first eighth of the warmup.

Control: with the peak at half of the limit, the constant lr is stable too, and the warmup must
change nothing of the rate at which x shrinks.
"""

import math

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import lrfused
from lrfused import analysis, schedules

from .common import plotting
from .common.statistics import Statement, Values, absent, agrees, larger
from .common.study import Result, collect, measured
from .common.training import places, thinned, train

PROBLEM, SEEDS = 3154094, 16
SWAPPED = ("no warmup", "warmup")
STEPS, COUNT, PEAK = 400, 16, 0.1
FIRST, HALF = STEPS // 8, STEPS // 2  # every curvature is stable before HALF
ARMS = {"no warmup": 1, "warmup": STEPS}
SHARPEST = 1.6  # the peak by the lowest limit
CONTROL = 0.5 / SHARPEST  # of the peak
SETTLING = 5  # steps after the crossing, in which the smaller root still counts


def recipe(params, peak, momentum, curvatures, warmup_steps):
    """SGD, and what the roots say of it: along each eigenvector, at each step of the warmup."""
    lr = schedules.warmup_constant(peak, warmup_steps, start="1/n")
    steps = range(warmup_steps)
    found = [analysis.momentum_dynamics(lr, momentum, c, steps) for c in curvatures]
    return lrfused.SGD(params, lr=lr, momentum=momentum), found


class Quadratic:
    """sum(curvatures x**2) / 2, with limits of 1/1.6 to 1/1.1 of the peak."""

    def __init__(self, seed: int, device: torch.device):
        generator, self.device = torch.Generator().manual_seed(seed), device
        self.momentum = 0.8 + 0.15 * torch.rand(1, generator=generator).item()
        excess = 1.1 + 0.5 * torch.rand(COUNT, generator=generator, dtype=torch.float64)
        excess[0] = SHARPEST  # the sharpest, which the picture shows
        self.curvatures = excess * 2.0 * (1.0 + self.momentum) / PEAK
        self.start = torch.randn(COUNT, generator=generator, dtype=torch.float64)

    def train(
        self, peak: float, warmup_steps: int
    ) -> tuple[Values, list[analysis.MomentumDynamics]]:
        """x before each step and after the last, steps x curvatures; the roots by curvature."""
        x = torch.nn.Parameter(self.start.clone().to(self.device))
        curvatures, path = self.curvatures.to(self.device), [self.start.numpy()]
        opt, found = recipe([x], peak, self.momentum, self.curvatures.tolist(), warmup_steps)
        train(
            opt,
            lambda step: 0.5 * (curvatures * x * x).sum(),
            STEPS,
            ceiling=math.inf,  # x is finite where its square is not any more
            after=lambda step: path.append(x.detach().cpu().numpy().copy()),
        )
        return np.stack(path), found


def run(seeds: list[int], device: torch.device) -> Result:
    rows, errors, momentum = [], [], []
    curves: dict[str, list[list[float]]] = {name: [] for name in (*ARMS, "measured", "roots")}
    for seed in seeds:
        task, row = Quadratic(seed, device), {}
        limits = [analysis.stable_lr(c) / PEAK for c in task.curvatures.tolist()]
        for arm, warmup_steps in ARMS.items():
            control, _ = task.train(CONTROL * PEAK, warmup_steps)
            x, found = task.train(PEAK, warmup_steps)
            row[arm] = {
                "growth": growth(x),
                "growth in the control": growth(control),
                "divergence": float(np.mean([divergence(path) for path in x.T])),
                "roots": float(np.mean([crossing(each) for each in found])),
                "without momentum": float(np.mean(limits)) * warmup_steps,
            }
            curves[arm].append(thinned(np.log10(np.abs(x[1:, 0]))))
        momentum.append(task.momentum)
        rows.append(row)  # x and found are now those of the warmup, the last arm
        ratios, predicted = damping_ratios(x, found)
        curves["measured"].append(thinned(ratios.mean(axis=0)))
        curves["roots"].append(thinned(predicted.mean(axis=0)))
        damping = float((ratios - predicted)[:, FIRST:].mean())
        errors.append({"errors": {"damping ratio": damping, "growth": growth_error(x, found)}})
    axes = {"places": places(STEPS), "early places": places(HALF), "momentum": momentum}
    return {"arms": collect(rows), **collect(errors), "curves": curves, **axes}


def growth(x: Values) -> float:
    """Of log |x| in a step, over the first half of the run."""
    return float(np.log(np.abs(x[HALF] / x[0])).mean() / HALF)


def divergence(path: Values) -> int:
    """The step after the last one that brought x nearer to the minimum."""
    nearer = np.flatnonzero(np.abs(path[1:]) < np.abs(path[:-1]))
    return int(nearer[-1]) + 1 if len(nearer) else 0


def crossing(found: analysis.MomentumDynamics) -> int:
    """The first step that the roots call unstable."""
    return int(np.argmin(found.stable))


def damping_ratios(x: Values, found: list[analysis.MomentumDynamics]) -> tuple[Values, Values]:
    """zeta, measured and of the roots, curvatures x steps, in the first half of the run.

    Four x in a row determine the equation x[t+1] = c x[t] - d x[t-1] of two steps.
    """
    x0, x1, x2, x3 = (x[i : i + HALF].T for i in range(4))
    determinant = x1 * x1 - x0 * x2  # not 0 where the roots are conjugate
    c, d = (x1 * x2 - x0 * x3) / determinant, (x2 * x2 - x1 * x3) / determinant
    root = c / 2.0 + np.emath.sqrt(c * c / 4.0 - d)
    predicted = np.stack([each.damping_ratio[1 : HALF + 1] for each in found])
    return -np.log(d) / (2.0 * np.abs(np.log(root + 0j))), predicted


def growth_error(x: Values, found: list[analysis.MomentumDynamics]) -> float:
    """Growth of log |x| in a step after the crossing, less that of the larger root."""
    errors = []
    for path, each in zip(x.T, found, strict=True):
        since = crossing(each) + SETTLING
        grown = np.log(np.abs(path[-1] / path[since]))
        errors.append((grown - np.log(each.spectral_radius[since:]).sum()) / (STEPS - since))
    return float(np.mean(errors))


def check(result: Result) -> list[Statement]:
    without, warmup = measured(result, "no warmup", "warmup")
    prevented = without["growth"] - warmup["growth"]
    control = without["growth in the control"] - warmup["growth in the control"]
    error = warmup["divergence"] - warmup["roots"]
    nearer = np.abs(warmup["divergence"] - warmup["without momentum"]) - np.abs(error)
    growths, ratios = result["errors"]["growth"], result["errors"]["damping ratio"]
    log = "log |x| per step"
    return [
        larger("growth that the warmup prevents", prevented, than=0.1, unit=log),
        larger("roots nearer to the divergence than 2 / lambda", nearer, than=20.0, unit="steps"),
        agrees("divergence, less the roots'", error, within=4.0, unit="steps"),
        agrees("growth after it, less the roots'", growths, within=0.02, unit=log),
        agrees("damping ratio, less the roots'", ratios, within=0.01, unit="1"),
        absent("growth prevented at half of the limit", control, within=0.02, unit=log),
    ]


def main_panel(axes: Axes, result: Result) -> None:
    for number, arm in enumerate(ARMS):
        plotting.curve(axes, result["places"], result["curves"][arm], arm, number)
    roots = STEPS / SHARPEST
    plain = roots / (1.0 + np.mean(result["momentum"]))
    color = plotting.MARGIN_COLOR
    axes.axvline(roots, ymin=0.4, color=color, linestyle="--", label="limit of the roots")
    axes.axvline(plain, ymin=0.4, color=color, linestyle=":", label="limit without momentum")
    axes.set_ylim(-24.0, 16.0)
    plotting.labelled(axes, "along the sharpest eigenvector", "step", "log10 |x|", legend=False)
    axes.legend(loc="lower left")


def damping_panel(axes: Axes, result: Result) -> None:
    for number, name in enumerate(("measured", "roots")):
        style = {"linestyle": "--"} if name == "roots" else {}
        plotting.curve(axes, result["early places"], result["curves"][name], name, number, **style)
    plotting.labelled(axes, "damping ratio in the warmup", "step", "zeta")


def plot(result: Result) -> Figure:
    return plotting.figure(result, main_panel, damping_panel)

"""Warmup and the optimizer: near its stability limit, momentum gains more by a warmup than SGD.

The benefit of a warmup is the early loss without it, less the early loss with it, averaged over
the first steps and divided by the curvature, the largest eigenvalue of the Hessian:

    benefit = (loss without warmup - loss with warmup) / lambda_max

Claim: at the same share of the optimizer's own stability limit, it is larger with momentum, in SGD
and in AdamW, than in plain SGD. The task is linear regression (diabetes, rows drawn anew by seed)
in whole batches, the peak 95% of the limit; losses are those above the minimum. The limits are

    SGD, momentum b    2 (1 + b) / lambda_max
    AdamW              2 (1 + b) / c,    c = s' H s / s' g,    s = sign(g), its first step

(AdamW has no limit of this kind, since v adapts to what it does. With this one, its first step
goes as far beyond the minimum along its line as that of SGD with momentum along the sharpest
eigenvector.)

Below its limit, every step of SGD reduces the error along every eigenvector, so there is little
that a warmup could prevent. Momentum is stable in the long run only: its first steps overshoot, and
the loss rises above its start before it falls. At half of the limit a warmup delays all three: what
calls for it is a peak near the limit, not momentum by itself. At equal peaks, SGD would be the
first that needs it, as its limit is lower by the factor 1 + b.

Control: at a quarter of the limit nothing overshoots, a warmup delays all three about as much, and
the effect must be absent.
"""

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import lrfused
from lrfused import analysis, schedules

from .common import data, plotting
from .common.statistics import Statement, Values, absent, larger
from .common.study import Result, collect, measured
from .common.training import places, thinned, train

PROBLEM, SEEDS = 3143279, 16
SWAPPED = ("no warmup", "warmup")
STEPS, EARLY, MOMENTUM, STARTS = 40, 20, 0.9, 16
ARMS = {"no warmup": 1, "warmup": 20}  # steps of warmup: 1 is none
OPTIMIZERS = {"SGD": 0.0, "momentum": MOMENTUM, "AdamW": MOMENTUM}
LIMIT, CONTROL = 0.95, 0.25
SHARES = (CONTROL, 0.5, 0.75, 0.9, LIMIT)  # the peak, of the optimizer's stability limit
MARGIN = 0.05  # a tenth of the loss at the start


def recipe(loss, params, momentum, share, warmup_steps):
    """The peak is a share of the lr at which SGD becomes unstable on this loss."""
    sharpness = analysis.largest_eigenvalue(loss, params).value
    peak = share * analysis.stable_lr(sharpness, momentum)
    lr = schedules.warmup_constant(peak, warmup_steps, start="1/n")
    return lrfused.SGD(params, lr=lr, momentum=momentum)


class Task:
    """Linear regression on rows drawn with replacement, from several starts at once.

    They are the columns of the weights, in random directions from the minimum; the loss is the sum
    over them above the minimum, and each contributes lambda_max / 2 at the start.
    """

    def __init__(self, seed: int, device: torch.device):
        samples, generator = data.table("diabetes"), torch.Generator().manual_seed(seed)
        rows = torch.randint(len(samples.x), (len(samples.x),), generator=generator)
        x, y = samples.x[rows], samples.y[rows, None]
        minimum = torch.linalg.lstsq(x.double(), y.double()).solution.float()
        self.x, self.minimum = x.to(device), minimum.to(device)
        away = torch.randn(x.shape[1], STARTS, generator=generator).to(device)
        w = away.clone().requires_grad_()
        self.curvature = analysis.largest_eigenvalue(lambda: self.loss(w), [w]).value
        away *= (self.curvature / (self.x @ away).square().mean(0)).sqrt()
        self.start = self.minimum + away

    def loss(self, w: Tensor) -> Tensor:
        return 0.5 * (self.x @ (w - self.minimum)).square().mean(0).sum()


def adamw(task: Task, w: Tensor, share: float, warmup_steps: int) -> lrfused.AdamW:
    """The same for AdamW, with the curvature along its first step."""
    (gradient,) = torch.autograd.grad(task.loss(w), [w])
    step = gradient.sign() / gradient.abs().sum().sqrt()
    u = torch.zeros(1, device=w.device, requires_grad=True)
    along = analysis.largest_eigenvalue(lambda: task.loss(w.detach() + u * step), [u]).value
    lr = schedules.warmup_constant(
        share * analysis.stable_lr(along, MOMENTUM), warmup_steps, start="1/n"
    )
    return lrfused.AdamW([w], lr=lr, betas=(MOMENTUM, 0.999), weight_decay=0.0)


def losses(task: Task, optimizer: str, share: float, warmup_steps: int) -> list[float]:
    """The mean loss above the minimum, divided by the curvature, before each step."""
    w = torch.nn.Parameter(task.start.clone())
    if optimizer == "AdamW":
        opt = adamw(task, w, share, warmup_steps)
    else:
        opt = recipe(lambda: task.loss(w), [w], OPTIMIZERS[optimizer], share, warmup_steps)
    unit = task.curvature * STARTS
    return [loss / unit for loss in train(opt, lambda step: task.loss(w), STEPS)]


def run(seeds: list[int], device: torch.device) -> Result:
    rows = []
    curves = {arm: {optimizer: [] for optimizer in OPTIMIZERS} for arm in ARMS}
    for seed in seeds:
        task, row = Task(seed, device), {arm: {} for arm in ARMS}
        for arm, warmup_steps in ARMS.items():
            for optimizer in OPTIMIZERS:
                for share in SHARES:
                    found = losses(task, optimizer, share, warmup_steps)
                    row[arm][measure(optimizer, share)] = sum(found[1 : EARLY + 1]) / EARLY
                curves[arm][optimizer].append(thinned(found))  # the last share is the limit's
        rows.append(row)
    return {"arms": collect(rows), "places": places(STEPS), "curves": curves}


def measure(optimizer: str, share: float) -> str:
    return f"{optimizer} at {share}"


def benefit(result: Result, optimizer: str, share: float) -> Values:
    without, warmup = measured(result, "no warmup", "warmup")
    return without[measure(optimizer, share)] - warmup[measure(optimizer, share)]


def check(result: Result) -> list[Statement]:
    unit, claims, controls = "loss / lambda_max", [], []
    for optimizer in ("momentum", "AdamW"):
        near, far = (
            benefit(result, optimizer, share) - benefit(result, "SGD", share)
            for share in (LIMIT, CONTROL)
        )
        text = f"a warmup helps {optimizer} more than SGD"
        claims.append(larger(text, near, than=MARGIN, unit=unit))
        controls.append(
            absent(
                f"the same at a quarter of the limit, {optimizer}", far, within=MARGIN, unit=unit
            )
        )
    return claims + controls


def main_panel(axes: Axes, result: Result) -> None:
    for arm, line in (("no warmup", "-"), ("warmup", ":")):
        for number, optimizer in enumerate(OPTIMIZERS):
            plotting.curve(
                axes,
                result["places"],
                result["curves"][arm][optimizer],
                f"{optimizer}, {arm}",
                number,
                linestyle=line,
            )
    plotting.labelled(axes, "peak of 95% of the limit", "step", "loss / lambda_max")


def benefit_panel(axes: Axes, result: Result) -> None:
    for number, optimizer in enumerate(OPTIMIZERS):
        values = [benefit(result, optimizer, share) for share in SHARES]
        plotting.curve(axes, SHARES, list(zip(*values, strict=True)), optimizer, number, marker="o")
    axes.axhline(0.0, color=plotting.COLORS[5], linewidth=0.8)
    plotting.labelled(
        axes, "benefit of the warmup", "peak / stability limit", "loss saved / lambda_max"
    )


def plot(result: Result) -> Figure:
    return plotting.figure(result, main_panel, benefit_panel)

"""Warmup and the optimizer: near its stability limit, momentum gains by a warmup and SGD does not.

The benefit of a warmup is the early loss without it, less the early loss with it, both above the
minimum, averaged over the first steps and divided by the curvature, the largest eigenvalue of the
Hessian:

    benefit = (loss without warmup - loss with warmup) / lambda_max

Claim: at the same share of the optimizer's own stability limit, it is larger with momentum, in SGD
and in AdamW, than in plain SGD. The task is linear regression (diabetes, rows drawn anew by seed) in
whole batches, the peak 95% of the limit. These limits are

    SGD, momentum b    2 (1 + b) / lambda_max
    AdamW              2 (1 + b1) / ((1 - b1) lambda_max of P^-1/2 H P^-1/2),  P = |first gradient|

Below its limit, SGD reduces the error along every eigenvector in every step, so that a warmup can
only delay it. Momentum is stable there only in the long run: the velocity first adds up, and the loss
rises to several times its start before it falls. AdamW's first steps, of the size lr whatever the
gradient is, do the same. At half of the limit a warmup delays SGD with momentum as it delays SGD:
what calls for a warmup is the distance to the limit, not momentum by itself.

Control: a peak of 1/1000 of the limit, where no step can overshoot; the effect must be absent.
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

PROBLEM, SEEDS = 3143279, 24
SWAPPED = ("no warmup", "warmup")
STEPS, EARLY, MOMENTUM = 40, 20, 0.9
ARMS = {"no warmup": 1, "warmup": 20}  # steps of warmup: 1 is none
OPTIMIZERS = {"SGD": 0.0, "momentum": MOMENTUM, "AdamW": MOMENTUM}
LIMIT, CONTROL = 0.95, 0.001
SHARES = (CONTROL, 0.25, 0.5, 0.75, 0.9, LIMIT)  # the peak, of the optimizer's stability limit
MARGIN = 0.1  # the loss at the start is 0.5


def recipe(loss, params, momentum, share, warmup_steps):
    """The peak is a share of the lr at which SGD becomes unstable on this loss."""
    sharpness = analysis.largest_eigenvalue(loss, params).value
    peak = share * analysis.stable_lr(sharpness, momentum)
    lr = schedules.warmup_constant(peak, warmup_steps, start="1/n")
    return lrfused.SGD(params, lr=lr, momentum=momentum)


class Task:
    """Linear regression on rows drawn with replacement, above the minimum and per curvature.

    The start lies in a random direction from the minimum, where this loss is 1/2.
    """

    def __init__(self, seed: int, device: torch.device):
        samples, generator = data.table("diabetes"), torch.Generator().manual_seed(seed)
        rows = torch.randint(len(samples.x), (len(samples.x),), generator=generator)
        x, y = samples.x[rows], samples.y[rows]
        self.minimum = torch.linalg.lstsq(x, y[:, None]).solution[:, 0].to(device)
        self.x = x.to(device)
        self.start = torch.randn(x.shape[1], generator=generator).to(device)
        w = self.start.clone().requires_grad_()
        self.curvature = analysis.largest_eigenvalue(lambda: self.loss(w), [w]).value
        away = (self.curvature / (2.0 * self.loss(w).detach())).sqrt()
        self.start = self.minimum + away * (self.start - self.minimum)

    def loss(self, w: Tensor) -> Tensor:
        return 0.5 * (self.x @ (w - self.minimum)).square().mean()


def adamw(task: Task, w: Tensor, share: float, warmup_steps: int) -> lrfused.AdamW:
    """The same for AdamW: its limit is that of the Hessian as its first step scales it."""
    (gradient,) = torch.autograd.grad(task.loss(w), [w])
    scale, u = gradient.abs().rsqrt(), torch.zeros_like(w, requires_grad=True)
    sharpness = analysis.largest_eigenvalue(lambda: task.loss(w.detach() + scale * u), [u]).value
    peak = share * analysis.stable_lr(sharpness, MOMENTUM) / (1.0 - MOMENTUM)
    lr = schedules.warmup_constant(peak, warmup_steps, start="1/n")
    return lrfused.AdamW([w], lr=lr, betas=(MOMENTUM, 0.999), weight_decay=0.0)


def losses(task: Task, optimizer: str, share: float, warmup_steps: int) -> list[float]:
    """The loss above the minimum, divided by the curvature, before each step."""
    w = torch.nn.Parameter(task.start.clone())
    if optimizer == "AdamW":
        opt = adamw(task, w, share, warmup_steps)
    else:
        opt = recipe(lambda: task.loss(w), [w], OPTIMIZERS[optimizer], share, warmup_steps)
    return [loss / task.curvature for loss in train(opt, lambda step: task.loss(w), STEPS)]


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
    found = []
    for share, kind, place in (
        (LIMIT, lambda *args: larger(*args, than=MARGIN, unit="lambda_max"), "near the limit"),
        (CONTROL, lambda *args: absent(*args, within=MARGIN, unit="lambda_max"), "far below"),
    ):
        plain = benefit(result, "SGD", share)
        for optimizer in ("momentum", "AdamW"):
            text = f"{optimizer} gains more than SGD, {place}"
            found.append(kind(text, benefit(result, optimizer, share) - plain))
    return found

"""Diffusion: if noise comes in stages, the learning rate should drop with them.

A denoiser learns to tell the noise in images of digits, from x and the level of noise u in [0, 1]:

    x = sqrt(a) image + sqrt(1 - a) noise,   a = cos(pi u / 2)**2,   loss = |told - noise|**2 / 64
    stage k = 0, 1, 2:   u in the k-th third from above,   eta = peak * factor**k

Claim: if training goes through the levels in stages, from high noise to low, the error at high
noise is lower at the end if the drops are at the borders of stages than with the same drops half a
stage earlier or later, or with a cosine, all with the same sum of learning rates. With late drops
and the cosine, the first stage gets a quarter less of that sum, and the second, which overwrites,
twice as much; with early drops the last one gets more. Samples are closer to the test images than
with late drops, by their energy distance. And averages of the weights, updated in the optimizer's
pass, have a lower error than the weights: they remember more of the stages before. All other
numbers are those of the averages.

Control: each batch has all levels, as in ordinary training. Then there are no borders, nothing is
overwritten, and the effects must be absent. (Early drops cost a little of the error here, too, and
bring worse samples; a cosine brings better ones. So samples are compared with late drops only.)

The price of stages is a somewhat higher error at low noise, whose stage has the lowest rate. And
without stages, the error at high noise is lower still; but after so few updates samples are much
further from the test images.
"""

import math
from itertools import pairwise

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import lrfused
from lrfused import schedules

from .common import plotting
from .common.data import digits
from .common.models import mlp
from .common.statistics import Statement, Values, absent, larger
from .common.study import Result, collect, measured
from .common.training import batches, stream, train

PROBLEM, SEEDS = 3176541, 12
SWAPPED = ("half a stage late", "aligned")
STAGES, STAGE_STEPS, BATCH, PEAK, FACTOR, EMA = 3, 250, 64, 4e-3, 0.2, 0.99
STEPS, EVERY = STAGES * STAGE_STEPS, 25
ARMS = ("aligned", "half a stage early", "half a stage late", "cosine")
ORDERS = ("stages", "mixed")
BANDS = ("low", "middle", "high")
ERROR, DISTANCE = "mean squared error", "energy distance"


def recipe(params, peak, factor, stage_steps, stages):
    """stage(opt.known_step) says which noise the next batch gets."""
    stage = schedules.minimum(schedules.floor(schedules.step / stage_steps), stages - 1)
    lr = peak * factor**stage
    return stage, lr, lrfused.AdamW(params, lr=lr, weight_decay=0.0, ema_decay=0.99)


def optimizer(params: list[nn.Parameter], arm: str) -> tuple[schedules.Schedule, lrfused.AdamW]:
    """The stage, and the optimizer of an arm; all have the same sum of learning rates."""
    stage, lr, opt = recipe(params, PEAK, FACTOR, STAGE_STEPS, STAGES)
    if arm == "aligned":
        return stage, opt
    other = {
        "half a stage early": lr.at(schedules.step + STAGE_STEPS // 2),
        "half a stage late": lr.shifted(STAGE_STEPS // 2),
        "cosine": schedules.cosine(PEAK, 0.0, STEPS),
    }[arm]
    steps = range(STEPS)
    lr = other * float(lr.values(steps).sum() / other.values(steps).sum())
    return stage, lrfused.AdamW(params, lr=lr, weight_decay=0.0, ema_decay=EMA)


def run(seeds: list[int], device: torch.device) -> Result:
    rows, curves = [], {arm: [] for arm in ARMS}
    for seed in seeds:
        row = {arm: {} for arm in ARMS}
        for order in ORDERS:
            for arm in ARMS:
                found, curve = trained(order, arm, seed, device)
                row[arm] |= {f"{order}, {name}": value for name, value in found.items()}
                if order == "stages":
                    curves[arm].append([round(value, 4) for value in curve])
        rows.append(row)
    return {"arms": collect(rows), "places": list(range(EVERY, STEPS + 1, EVERY)), "curves": curves}


def trained(
    order: str, arm: str, seed: int, device: torch.device
) -> tuple[dict[str, float], list[float]]:
    """The errors at the end, and the one at high noise during training."""
    torch.manual_seed(seed)
    model = mlp([64 + 8, 96, 96, 64], nn.SiLU).to(device)
    stage, opt = optimizer(list(model.parameters()), arm)
    images = (2.0 * digits().x - 1.0).to(device)
    chosen = batches(len(images), BATCH, STEPS, seed).to(device)
    generator = stream(seed, "noise")
    curve: list[float] = []

    def loss(step: int) -> Tensor:
        levels = torch.rand(BATCH, generator=generator)
        if order == "stages":
            levels = (STAGES - 1 - stage(opt.known_step) + levels) / STAGES
        return denoising_loss(model, images[chosen[step]], levels, generator)

    def after(step: int) -> None:
        if order == "stages" and (step + 1) % EVERY == 0:
            with opt.averaged(model):
                curve.append(error(model, "high"))

    train(opt, loss, STEPS, after=after)
    found = {"high, weights": error(model, "high")}
    with opt.averaged(model):
        found |= {band: error(model, band) for band in BANDS}
        found["samples"] = distance(sampled(model, 300), test_images(model))
    return found, curve


def kept(levels: Tensor) -> Tensor:
    """a, but for its ends."""
    return 0.001 + 0.998 * torch.cos(0.5 * math.pi * levels).square()[:, None]


def told(model: nn.Module, x: Tensor, levels: Tensor) -> Tensor:
    """The noise in x, as the model tells it."""
    angles = levels[:, None] * math.pi * torch.arange(1, 5, device=x.device)
    return model(torch.cat([x, angles.sin(), angles.cos()], dim=1))


def denoising_loss(
    model: nn.Module, images: Tensor, levels: Tensor, generator: torch.Generator
) -> Tensor:
    noise = torch.randn(images.shape, generator=generator).to(images)
    levels = levels.to(images)
    share = kept(levels)
    x = share.sqrt() * images + (1.0 - share).sqrt() * noise
    return mse_loss(told(model, x, levels), noise)


def test_images(model: nn.Module) -> Tensor:
    return (2.0 * digits().test_x - 1.0).to(next(model.parameters()).device)


@torch.no_grad()
def error(model: nn.Module, band: str) -> float:
    """The loss on test images for a third of the levels, with the same noise at each call."""
    generator = torch.Generator().manual_seed(0)
    images = test_images(model)
    levels = (BANDS.index(band) + torch.rand(len(images), generator=generator)) / len(BANDS)
    return denoising_loss(model, images, levels, generator).item()


@torch.no_grad()
def sampled(model: nn.Module, count: int, steps: int = 40) -> Tensor:
    """Images from noise, by the deterministic steps of DDIM (arXiv 2010.02502)."""
    x = torch.randn(count, 64, generator=torch.Generator().manual_seed(0))
    x = x.to(next(model.parameters()))
    levels = torch.linspace(0.999, 0.001, steps + 1).to(x)
    for level, following in pairwise(levels):
        now, then = kept(level.expand(1)), kept(following.expand(1))
        image = (x - (1.0 - now).sqrt() * told(model, x, level.expand(count))) / now.sqrt()
        image = image.clamp(-1.0, 1.0)
        noise = (x - now.sqrt() * image) / (1.0 - now).sqrt()
        x = then.sqrt() * image + (1.0 - then).sqrt() * noise
    return x


def distance(first: Tensor, second: Tensor) -> float:
    """The energy distance of two samples: 0 if they are from one distribution."""

    def within(x: Tensor) -> Tensor:
        return torch.cdist(x, x).sum() / (len(x) * (len(x) - 1))

    return (2.0 * torch.cdist(first, second).mean() - within(first) - within(second)).item()


def check(result: Result) -> list[Statement]:
    aligned, early, late, cosine = measured(result, *ARMS)

    def over(other: dict[str, Values], measure: str) -> Values:
        return other[measure] - aligned[measure]

    def lower(text: str, values: Values, than: float) -> Statement:
        return larger(f"high noise: lower error than {text}", values, than=than, unit=ERROR)

    def same(text: str, values: Values, within: float, unit: str = ERROR) -> Statement:
        return absent(f"all levels: {text}", values, within=within, unit=unit)

    samples = {order: over(late, f"{order}, samples") for order in ORDERS}
    weights = {
        order: aligned[f"{order}, high, weights"] - aligned[f"{order}, high"] for order in ORDERS
    }
    return [
        lower("half a stage early", over(early, "stages, high"), 0.02),
        lower("half a stage late", over(late, "stages, high"), 0.02),
        lower("a cosine", over(cosine, "stages, high"), 0.02),
        lower("without averages", weights["stages"], 0.01),
        larger(
            "samples closer than half a stage late", samples["stages"], than=0.01, unit=DISTANCE
        ),
        same("half a stage early", over(early, "mixed, high"), 0.01),
        same("half a stage late", over(late, "mixed, high"), 0.01),
        same("a cosine", over(cosine, "mixed, high"), 0.01),
        same("without averages", weights["mixed"], 0.005),
        same("samples, half a stage late", samples["mixed"], 0.05, DISTANCE),
    ]


def main_panel(axes: Axes, result: Result) -> None:
    for number, (arm, errors) in enumerate(result["curves"].items()):
        plotting.curve(axes, result["places"], errors, arm, number)
    for border in range(STAGE_STEPS, STEPS, STAGE_STEPS):
        axes.axvline(border, color=plotting.COLORS[5], linestyle=":", linewidth=1)
    axes.set_ylim(0.0, 0.8)
    plotting.labelled(axes, "error at high noise", "step (dotted: borders of stages)", ERROR)


def bands_panel(axes: Axes, result: Result) -> None:
    places = [*(f"stages, {band}" for band in BANDS), "mixed, high"]
    found = {arm: [result["arms"][arm][place] for place in places] for arm in ARMS}
    plotting.bars(axes, ["low", "middle", "high", "high\n(all levels)"], found)
    plotting.labelled(axes, "at the end", "noise of the test", ERROR)


def plot(result: Result) -> Figure:
    return plotting.figure(result, main_panel, bands_panel)

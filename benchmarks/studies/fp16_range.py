"""Float16 and warmup: with a warmup, scaled gradients stay within the range of float16.

Losses are multiplied by a scale S, so that small gradients do not vanish; large ones must not
overflow. On a loss with curvature L, a step of gradient descent lets their norm G grow by at most

    G_{t+1} <= (1 + eta_t L) G_t          and        m <= S G_t <= M

is to hold, with m = 2**-14, the smallest normal number of float16, and M = 65504. A warmup keeps
eta_t L small until the curvature of the start has fallen.

Claims, for digits and a network whose weights and gradients are float16: without a warmup, (1) the
largest gradient grows by more octaves above the first (at S = 1; an overflow counts as 2**17), (2)
more steps overflow at a fixed S and are skipped, mostly all until the end, as neither S nor the
weights can change, and (3) a dynamic S ends lower, often at its minimum: the activations overflow
as well, which no S prevents. (4) With a warmup, a low S would not do in place of a high one: at
S = 1 more gradients are zero or subnormal.

Control: with a tenth of the peak the largest gradient is about the first, with or without a warmup.
"""

import math

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn
from torch.nn import functional

import lrfused
from lrfused import schedules

from .common import data, models, plotting
from .common.statistics import Statement, absent, larger
from .common.study import Result, collect, measured
from .common.training import batches

PROBLEM, SEEDS = 3143334, 16
SWAPPED = ("no warmup", "warmup")
ARMS = {"no warmup": 0, "warmup": 64}
BATCH, STEPS, PEAK, GAIN, SCALE = 128, 128, 0.4, 2.2, 4096.0
DYNAMIC = lrfused.LossScale(init=SCALE, growth_interval=32, minimum=1.0)
RUNS = {  # peak and loss scale
    "fixed": (PEAK, SCALE),
    "one": (PEAK, 1.0),
    "dynamic": (PEAK, DYNAMIC),
    "control": (PEAK / 10, SCALE),
}
LARGEST = 65504.0
BEYOND = 17.0  # log2: where curves show what has overflowed


def recipe(params, peak, warmup_steps, loss_scale):
    """loss_scale: a number, "dynamic" or a LossScale. opt.scale(loss).backward(), then opt.step().
    opt.metrics() has headroom (65504 / the largest), tiny_gradients and skipped_steps."""
    lr = schedules.warmup_constant(peak, warmup_steps, start="1/n")
    return lrfused.SGD(params, lr=lr, momentum=0.9, loss_scale=loss_scale)


def run(seeds: list[int], device: torch.device) -> Result:
    rows, curves = [], {arm: [] for arm in ARMS}
    for seed in seeds:
        row = {}
        for arm, warmup_steps in ARMS.items():
            runs = {name: trained(*RUNS[name], warmup_steps, seed, device) for name in RUNS}
            row[arm] = measures(runs)
            curves[arm].append([float(f"{size:.4g}") for size in sizes(runs["fixed"])[::3]])
        rows.append(row)
    return {"arms": collect(rows), "places": list(range(0, STEPS, 3)), "curves": curves}


def trained(
    peak: float,
    loss_scale: float | lrfused.LossScale,
    warmup_steps: int,
    seed: int,
    device: torch.device,
) -> list[dict[str, float]]:
    """The metrics of the optimizer after every step."""
    samples, model = data.digits(), network(seed).to(device)
    x, y = samples.x.half().to(device), samples.y.to(device)
    indices = batches(len(x), BATCH, STEPS, seed).to(device)
    opt = recipe(model.parameters(), peak, warmup_steps, loss_scale)
    found = []
    for rows in indices:
        loss = functional.cross_entropy(model(x[rows]).float(), y[rows])
        opt.zero_grad()
        opt.scale(loss).backward()
        opt.step()
        found.append(opt.metrics())
    return found


def network(seed: int) -> nn.Sequential:
    """With leaky units: plain ones have many zeros as gradients."""
    torch.manual_seed(seed)
    return models.mlp([64, 48, 48, 10], nn.LeakyReLU, gain=GAIN).half()


def sizes(found: list[dict[str, float]]) -> list[float]:
    """log2 of the largest scaled gradient at every step, BEYOND where it has overflowed."""
    return [
        math.log2(LARGEST / metrics["headroom"]) if metrics["headroom"] >= 1.0 else BEYOND
        for metrics in found
    ]


def growth(found: list[dict[str, float]]) -> float:
    """Octaves from the first to the largest."""
    found_sizes = sizes(found)
    return max(found_sizes) - found_sizes[0]


def measures(runs: dict[str, list[dict[str, float]]]) -> dict[str, float]:
    return {
        "growth": growth(runs["one"]),
        "control growth": growth(runs["control"]),
        "skipped": runs["fixed"][-1]["skipped_steps"] / STEPS,
        "log2 scale": math.log2(runs["dynamic"][-1]["loss_scale"]),
        "tiny": sum(metrics["tiny_gradients"] for metrics in runs["fixed"]) / STEPS,
        "tiny at 1": sum(metrics["tiny_gradients"] for metrics in runs["one"]) / STEPS,
        "control skipped": runs["control"][-1]["skipped_steps"] / STEPS,
    }


def check(result: Result) -> list[Statement]:
    without, warmup = measured(result, "no warmup", "warmup")
    differences = {name: without[name] - warmup[name] for name in without}
    tiny = warmup["tiny at 1"] - warmup["tiny"]
    return [
        larger("gradients grow more", differences["growth"], than=2.0, unit="octaves"),
        larger(
            "more skipped at a fixed scale", differences["skipped"], than=0.2, unit="share of steps"
        ),
        larger(
            "the dynamic scale ends lower", -differences["log2 scale"], than=2.0, unit="octaves"
        ),
        larger(
            "with a warmup, scale 1: more tiny gradients",
            tiny,
            than=0.05,
            unit="share of gradients",
        ),
        absent(
            "the growth with a tenth of the peak",
            differences["control growth"],
            within=0.5,
            unit="octaves",
        ),
    ]


def main_panel(axes: Axes, result: Result) -> None:
    for number, (arm, curves) in enumerate(result["curves"].items()):
        plotting.curve(axes, result["places"], curves, arm, number)
    axes.axhline(math.log2(LARGEST), color=plotting.MARGIN_COLOR, linestyle="--", label="M = 65504")
    plotting.labelled(
        axes, f"S = {SCALE:.0f}, overflow drawn at {BEYOND:.0f}", "step", "log2 of S max |g|"
    )


def shares_panel(axes: Axes, result: Result) -> None:
    names = {"skipped": "skipped", "control skipped": "skipped,\npeak / 10", "tiny": "tiny"}
    names["tiny at 1"] = "tiny,\nS = 1"
    shares = {arm: [result["arms"][arm][name] for name in names] for arm in ARMS}
    plotting.bars(axes, list(names.values()), shares)
    plotting.labelled(axes, "steps, and gradients below m", "", "share of all")


def plot(result: Result) -> Figure:
    return plotting.figure(result, main_panel, shares_panel)

"""Fine-tuning: a longer warmup amplifies the fading pull of the source task less.

The gradient has a bias that the source task left behind, and that fades over tau steps:

    g_t = grad L(w_t) + b exp(-t / tau)
    eta_t = peak min(1, (t + 1) / T_w)  for t < 60,     then linear to 0

To first order the bias moves the weights by b sum_t eta_t exp(-t / tau): by eta tau b without a
warmup, by eta tau^2 b / T_w with a warmup much longer than tau. Here tau is 10, T_w 0, 15 or 60.
Without a warmup the plateau begins at once. So all three reach the same peak, and from step 60
on their learning rates are the same.

Claim: the longer the warmup, the smaller is this amplification; measured on a quadratic, as the
largest distance between a run and the same run without the bias. And in a real transfer, the longer
the warmup, the more digits are recognised after it. A network that knows the digits 0 to 4 gets 100
images of the digits 5 to 9; the bias is the gradient of b exp(-t / tau) times the loss of what the
source network sees in these images, a digit from 0 to 4. It is strong, b = 15: without a warmup,
most networks are ruined for good, and the short one gives back half of what was lost. A lower peak
does not replace the warmup here: a tenth of it without a warmup weakens the pull on the quadratic,
too, but in the transfer it is too little for the new digits. The long warmup must be better here.
(In tuning, shares of the peak from a quarter to a twentieth recognised about equally many digits.)

Control: on the quadratic, a bias that does not fade moves the minimum itself, no warmup helps, and
the effect must be absent; in the transfer, without a bias, the long warmup must not change the
accuracy.
"""

import copy
import math

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import lrfused
from lrfused import schedules

from .common import data, models, plotting
from .common.statistics import Statement, absent, larger
from .common.study import Result, collect, measured
from .common.training import batches, places, stream, thinned, train

PROBLEM, SEEDS = 3143224, 16
SWAPPED = ("no warmup", "long warmup")
ARMS = {  # the share of the peak, the steps of warmup
    "no warmup": (1.0, 0),
    "short warmup": (1.0, 15),
    "long warmup": (1.0, 60),
    "lower peak": (0.1, 0),
}
PEAK, TOY_PEAK, FADE, BIAS = 0.07, 0.05, 10.0, 15.0
PLATEAU_END = 60  # from here on, the learning rate is the same, but for the lower peak
STEPS, BATCH, IMAGES, SOURCE_STEPS, SOURCE_DIGITS = 150, 16, 100, 150, 5
DRAWS = 2  # of images for a source network: their mean is what one seed says
TOY_STEPS, SHOWN, CURVATURES, NOISE = 200, 120, torch.logspace(-1, 0, 50), 0.1
FADING = schedules.exp(-schedules.step / FADE)
BIASES = {"fading": FADING, "lasting": schedules.constant(1.0), "none": schedules.constant(0.0)}


def recipe(params, peak, warmup_steps, plateau_end, total_steps):
    """The warmup should be several times as long as what the source task left behind lasts."""
    plateau, decay = plateau_end - warmup_steps, total_steps - plateau_end
    lr = schedules.wsd(peak, warmup_steps, plateau, decay, start="1/n")
    return lrfused.SGD(params, lr=lr, momentum=0.9)


def run(seeds: list[int], device: torch.device) -> Result:
    rows = []
    curves: dict[str, list[list[float]]] = {arm: [] for arm in ARMS}
    for seed in seeds:
        row: dict[str, dict[str, float]] = {arm: {} for arm in ARMS}
        source = pretrained(seed, device)
        for arm in ARMS:
            for name in ("fading", "lasting"):
                distances = drifted(BIASES[name], arm, seed, device)
                row[arm][f"doublings, {name}"] = math.log2(max(distances))
                if name == "fading":
                    curves[arm].append(thinned(distances[:SHOWN]))
            for name in ("fading", "none"):
                found = [
                    transferred(source, BIASES[name], arm, DRAWS * seed + draw, device)
                    for draw in range(DRAWS)
                ]
                row[arm][f"accuracy, {name}"] = sum(found) / DRAWS
        rows.append(row)
    return {"arms": collect(rows), "places": places(SHOWN), "curves": curves}


def drifted(bias: schedules.Schedule, arm: str, seed: int, device: torch.device) -> list[float]:
    """At each step, the distance of a run with the bias, row 0, from one without it, row 1."""
    generator = stream(seed, "toy")
    start, pull = torch.randn(2, len(CURVATURES), generator=generator).to(device)
    noise = NOISE * torch.randn(TOY_STEPS, len(CURVATURES), generator=generator).to(device)
    biased = torch.tensor([[1.0], [0.0]], device=device) * pull / pull.norm()
    x, curvatures = nn.Parameter(start.repeat(2, 1)), CURVATURES.to(device)
    share, warmup_steps = ARMS[arm]
    opt = recipe([x], share * TOY_PEAK, warmup_steps, PLATEAU_END, TOY_STEPS)
    distances: list[float] = []

    def loss(step: int) -> Tensor:
        return (0.5 * curvatures * x * x + (noise[step] + bias(step) * biased) * x).sum()

    def after(step: int) -> None:
        distances.append((x[0] - x[1]).norm().item())

    train(opt, loss, TOY_STEPS, after=after)
    return distances


def pretrained(seed: int, device: torch.device) -> nn.Module:
    """A network that has learned the digits 0 to 4."""
    torch.manual_seed(seed)
    model = models.mlp([64, 64, 32, 10]).to(device)
    known = data.digits().y < SOURCE_DIGITS
    x, y = data.digits().x[known].to(device), data.digits().y[known].to(device)
    chosen = batches(len(x), 32, SOURCE_STEPS, seed).to(device)
    opt = lrfused.AdamW(model.parameters(), lr=schedules.linear(6e-3, 0.0, SOURCE_STEPS))
    train(opt, lambda step: cross_entropy(model(x[chosen[step]]), y[chosen[step]]), SOURCE_STEPS)
    return model


def transferred(
    source: nn.Module,
    bias: schedules.Schedule,
    arm: str,
    seed: int,
    device: torch.device,
) -> float:
    """Accuracy on the digits 5 to 9 after fine-tuning with a bias towards the source's answers."""
    digits, model = data.digits(), copy.deepcopy(source)
    new, tested = digits.y >= SOURCE_DIGITS, digits.test_y >= SOURCE_DIGITS
    order = torch.randperm(int(new.sum()), generator=stream(seed, "images"))
    x, y = (part[new][order[:IMAGES]].to(device) for part in (digits.x, digits.y))
    with torch.no_grad():
        seen = source(x)[:, :SOURCE_DIGITS].argmax(-1)
    chosen = batches(IMAGES, BATCH, STEPS, seed).to(device)
    share, warmup_steps = ARMS[arm]
    opt = recipe(model.parameters(), share * PEAK, warmup_steps, PLATEAU_END, STEPS)

    def loss(step: int) -> Tensor:
        picked = chosen[step]
        logits = model(x[picked])
        pull = BIAS * bias(step) * cross_entropy(logits, seen[picked])
        return cross_entropy(logits, y[picked]) + pull

    train(opt, loss, STEPS)
    test_x, test_y = digits.test_x[tested].to(device), digits.test_y[tested].to(device)
    return models.accuracy(model, test_x, test_y)


def check(result: Result) -> list[Statement]:
    without, short, long, lower = measured(result, *ARMS)
    amplified, lasting = "doublings, fading", "doublings, lasting"
    right, clean = "accuracy, fading", "accuracy, none"
    unit, share = "doublings", "share of images"
    return [
        larger("drift: none - short", without[amplified] - short[amplified], than=0.2, unit=unit),
        larger("drift: short - long", short[amplified] - long[amplified], than=0.5, unit=unit),
        larger("accuracy: short - none", short[right] - without[right], than=0.1, unit=share),
        larger("accuracy: long - short", long[right] - short[right], than=0.1, unit=share),
        larger("accuracy: long - lower peak", long[right] - lower[right], than=0.1, unit=share),
        absent("drift, lasting bias", without[lasting] - long[lasting], within=0.1, unit=unit),
        absent("accuracy, no bias", long[clean] - without[clean], within=0.04, unit=share),
    ]


def main_panel(axes: Axes, result: Result) -> None:
    for number, (arm, distances) in enumerate(result["curves"].items()):
        plotting.curve(axes, result["places"], distances, arm, number)
    plotting.labelled(axes, "quadratic, fading bias", "step", "distance from the run without bias")


def accuracy_panel(axes: Axes, result: Result) -> None:
    shares = {
        arm: [result["arms"][arm][f"accuracy, {name}"] for name in ("fading", "none")]
        for arm in ARMS
    }
    plotting.bars(axes, ["fading bias", "control, no bias"], shares)
    plotting.labelled(axes, "digits 5 to 9 after the transfer", "gradient", "accuracy")


def plot(result: Result) -> Figure:
    return plotting.figure(result, main_panel, accuracy_panel)

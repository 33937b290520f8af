"""The demo's picture: both runs over each other in four panels."""

from pathlib import Path
from typing import Any

import numpy as np
from demo_training import Run, Settings, loss_differences
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

# The first run is a broad pale line, the second a thin dark one on top of it: both are seen
# where they coincide.
STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#f4a259", "linewidth": 4.5},
    {"color": "#14375e", "linewidth": 1.1},
)
LIMIT_STYLE: dict[str, Any] = {"color": "#b3261e", "linestyle": "--", "linewidth": 1.2}


def draw(torch_run: Run, fused_run: Run, settings: Settings, limit: float, path: Path) -> None:
    """Write losses, learning rate, gradient norm and clip coefficient of both runs as a PNG."""
    runs = (torch_run, fused_run)
    figure = Figure(figsize=(13, 8.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 2)
    _losses(panels[0, 0], runs, limit)
    _learning_rates(panels[0, 1], runs, settings)
    _norms(panels[1, 0], runs, settings)
    _coefficients(panels[1, 1], runs)
    for panel in panels.flat:
        panel.set_xlabel("step")
        panel.grid(alpha=0.25)
        panel.margins(x=0.01)
    figure.suptitle(
        f"Character GPT on the standard library's sources, seed {settings.seed}: "
        "torch's pipeline and lrfused"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _overlay(panel: Axes, runs: tuple[Run, Run], values: list[list[float]]) -> None:
    for run, style, line in zip(runs, STYLES, values, strict=True):
        finite = np.where(np.isfinite(line), line, np.nan)
        panel.plot(finite, label=run.name, **style)


def _losses(panel: Axes, runs: tuple[Run, Run], limit: float) -> None:
    _overlay(panel, runs, [run.losses for run in runs])
    panel.set_title("training loss (nats a character)")
    panel.legend(loc="lower left")
    inset = panel.inset_axes((0.45, 0.52, 0.53, 0.4))
    differences = np.array(loss_differences(*runs))
    inset.semilogy(np.where(differences > 0.0, differences, np.nan), ".", color="#555555", ms=3)
    inset.axhline(limit, **LIMIT_STYLE)
    inset.set_ylim(1e-8, max(1e-2, 2.0 * np.nanmax(differences, initial=0.0)))
    inset.set_title("|difference| where not 0, and its limit", fontsize=9)
    inset.tick_params(labelsize=8)
    inset.grid(alpha=0.25)


def _learning_rates(panel: Axes, runs: tuple[Run, Run], settings: Settings) -> None:
    _overlay(panel, runs, [[report.lr for report in run.reports] for run in runs])
    panel.axvline(settings.warmup_steps, color="#888888", linestyle=":")
    panel.annotate(
        "end of warmup",
        (settings.warmup_steps, settings.end_lr),
        xytext=(6, 0),
        textcoords="offset points",
        color="#555555",
    )
    panel.set_title("learning rate")
    panel.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    panel.legend(loc="upper right")


def _norms(panel: Axes, runs: tuple[Run, Run], settings: Settings) -> None:
    _overlay(panel, runs, [[report.grad_norm for report in run.reports] for run in runs])
    panel.axhline(settings.max_grad_norm, label="clip threshold", **LIMIT_STYLE)
    panel.set_yscale("log")
    panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panel.yaxis.set_minor_formatter(NullFormatter())
    panel.set_title("gradient norm before the clip")
    panel.legend(loc="upper right")


def _coefficients(panel: Axes, runs: tuple[Run, Run]) -> None:
    _overlay(panel, runs, [[report.clip_coefficient for report in run.reports] for run in runs])
    for run, style, height in zip(runs, STYLES, (-0.05, -0.11), strict=True):
        clipped = [step for step, report in enumerate(run.reports) if report.clipped]
        label = f"clipped by {run.name}: {len(clipped)} of {len(run.reports)} steps"
        panel.plot(clipped, [height] * len(clipped), "|", color=style["color"], label=label)
    panel.set_ylim(-0.16, 1.05)
    panel.set_title("clip coefficient, and the steps that were clipped")
    panel.legend(loc="lower right", bbox_to_anchor=(1.0, 0.12))

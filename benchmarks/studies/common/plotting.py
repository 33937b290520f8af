"""Pictures: two panels beside each other, means with their intervals, one look for all."""

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from .statistics import interval, intervals
from .study import Result

COLORS = ("#14375e", "#f4a259", "#5b8e7d", "#4aa3df", "#8e6c8a", "#6c6c6c")
MARGIN_COLOR = "#b3261e"
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.hashsalt": "lrfused",  # element ids depend on it: the same results give the same file
    "svg.fonttype": "none",
}
Panel = Callable[[Axes, Result], None]


def figure(result: Result, *panels: Panel) -> Figure:
    """The panels side by side, as wide as a page."""
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(8.6, 3.1), layout="constrained")
        FigureCanvasAgg(drawn)
        for axes, panel in zip(
            drawn.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
        ):
            panel(axes, result)
    return drawn


def save(drawn: Figure, path: Path, description: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        drawn.savefig(path, metadata={"Date": None, "Description": description})


def curve(
    axes: Axes, x: Sequence[float], values: ArrayLike, label: str, number: int, **style: object
) -> None:
    """The mean over seeds (the first axis) as a line, and its 95% interval as a band."""
    mean, half = intervals(np.asarray(values, dtype=np.float64))
    color = COLORS[number]
    axes.plot(x, mean, color=color, label=label, linewidth=1.4, **style)  # type: ignore[arg-type]
    axes.fill_between(x, mean - half, mean + half, color=color, alpha=0.22, linewidth=0)


def differences(
    axes: Axes, x: Sequence[float], curves: dict[str, dict[str, ArrayLike]], arms: tuple[str, str]
) -> None:
    """The first arm's curve less the second's, paired by seed, for each pair of curves."""
    for number, (name, by_arm) in enumerate(curves.items(), start=2):
        first, second = (np.asarray(by_arm[arm], dtype=np.float64) for arm in arms)
        curve(axes, x, first - second, name, number)
    axes.axhline(0.0, color="gray", linestyle=":")


def bars(axes: Axes, labels: Sequence[str], groups: dict[str, Sequence[ArrayLike]]) -> None:
    """A dot with its 95% interval for every label (along x) and every group (by colour)."""
    offsets = np.linspace(-0.14, 0.14, len(groups)) if len(groups) > 1 else [0.0]
    for number, (offset, (name, columns)) in enumerate(zip(offsets, groups.items(), strict=True)):
        found = [interval(np.asarray(column, dtype=np.float64)) for column in columns]
        axes.errorbar(
            np.arange(len(labels)) + offset,
            [mean for mean, _ in found],
            yerr=[half for _, half in found],
            fmt="o",
            color=COLORS[number],
            label=name,
            capsize=3,
            markersize=4,
        )
    axes.set_xticks(range(len(labels)), labels)
    axes.set_xlim(-0.5, len(labels) - 0.5)


def labelled(axes: Axes, title: str, x: str, y: str, *, legend: bool = True) -> None:
    """Title, names of the axes with their units, and a legend."""
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.25)
    if legend:
        axes.legend()

"""One picture of all studies: their main panels, small."""

import hashlib
import math
import textwrap
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from . import plotting
from .records import Record
from .study import Study

NAME = "all"
COLUMNS, TITLE_WIDTH = 5, 34  # studies in a row; characters in a line
SMALL = {"font.size": 6, "lines.linewidth": 0.9, "axes.titlesize": 7.5, "lines.markersize": 2}


def write(records: dict[str, Record], path: Path) -> None:
    plotting.save(draw(records), path, f"sha256 {digest(records)}")


def digest(records: dict[str, Record]) -> str:
    drawings = [Study(name).drawing(record["result"]) for name, record in records.items()]
    return hashlib.sha256("".join(drawings).encode()).hexdigest()


def draw(records: dict[str, Record]) -> Figure:
    """Five in a row, without legends: they are read on the page."""
    with matplotlib.rc_context({**plotting.STYLE, **SMALL}):
        rows = max(1, math.ceil(len(records) / COLUMNS))
        drawn = Figure(figsize=(11, 1.95 * rows), layout="constrained")
        FigureCanvasAgg(drawn)
        places = list(drawn.subplots(rows, COLUMNS, squeeze=False).flat)
        for axes, (name, record) in zip(places, records.items(), strict=False):
            study = Study(name)
            study.module.main_panel(axes, record["result"])
            _shrink(axes, f"{study.number}. {study.subject}", record["verdict"])
        for axes in places[len(records) :]:
            axes.set_axis_off()
    return drawn


def _shrink(axes: Axes, title: str, verdict: str) -> None:
    axes.set_title(f"{textwrap.fill(title, TITLE_WIDTH)}\n{verdict}", fontsize=7)
    if axes.get_legend() is not None:
        axes.get_legend().remove()
    axes.tick_params(labelsize=5, length=2, pad=1)
    axes.xaxis.label.set_size(6)
    axes.yaxis.label.set_size(6)

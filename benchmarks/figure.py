"""The picture of a result file: every provider's time in units of lrfused's."""

import hashlib
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from records import Key, Record, by_case, with_times
from table import COPY, TITLES, Row, owns, targeted, title
from timing import Spread, ratio

STYLES = {
    "loop": ("o", "#b8b8b8"),
    "foreach": ("s", "#8fb8de"),
    "fused": ("D", "#f4a259"),
    "compile": ("^", "#5b8e7d"),
    "deepspeed": ("v", "#8e6c8a"),
    "lrfused-cuda": ("P", "#14375e"),
    "lrfused-triton": ("X", "#3d7ab8"),
}
OTHER = ("v", "#8e6c8a")
OWN_COLOR, TARGET_COLOR = "#14375e", "#b3261e"
SALT = "lrfused"  # element ids in the file depend on it: the same results give the same file


def digest(results: Path) -> str:
    """Ties a figure to the result file that it was drawn from."""
    return f"sha256 of {results.name}: {hashlib.sha256(results.read_bytes()).hexdigest()}"


def draw(record: Record, results: Path, path: Path) -> None:
    """Write the figure as SVG, with the digest of ``results`` in its description."""
    rows = targeted(record)
    keys = list(dict.fromkeys(row.key for row in rows))
    figure = Figure(figsize=(10, 1.6 + 0.62 * len(keys)), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    own = owns(record)[0]
    present = dict.fromkeys(found["provider"] for found in record["measurements"])
    for name in (*STYLES, *(name for name in present if name not in STYLES)):
        if name != own:
            _provider(axes, record, keys, name, own)
    _targets(axes, keys, rows)
    _axes(axes, keys, own)
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": SALT}):
        figure.savefig(path, metadata={"Date": None, "Description": digest(results)})


def _provider(axes: Axes, record: Record, keys: list[Key], name: str, own: str) -> None:
    spreads = _spreads(record, keys, name, own)
    if not spreads:
        return
    marker, color = STYLES.get(name, OTHER)
    middles = [spread.median for spread in spreads.values()]
    below = [spread.median - spread.lower for spread in spreads.values()]
    above = [spread.upper - spread.median for spread in spreads.values()]
    axes.errorbar(
        middles,
        list(spreads),
        xerr=(below, above),
        fmt=marker,
        color=color,
        label=TITLES[name],
        capsize=3,
    )


def _spreads(record: Record, keys: list[Key], name: str, own: str) -> dict[int, Spread]:
    """Times relative to lrfused's, by the place of the case in the figure."""
    cases, spreads = by_case(record), {}
    for place, key in enumerate(keys):
        found = with_times(cases.get(key, {}), [name, own])
        if len(found) == 2:
            spreads[place] = ratio(*(found[n]["seconds"]["rounds"] for n in (name, own)))
    return spreads


def _targets(axes: Axes, keys: list[Key], rows: list[Row]) -> None:
    rows = [row for row in rows if row.against != COPY]
    places = [keys.index(row.key) for row in rows if row.target is not None]
    values = [row.target for row in rows if row.target is not None]
    style = {"marker": "|", "markersize": 22, "markeredgewidth": 2, "linestyle": "none"}
    axes.plot(values, places, color=TARGET_COLOR, label="target for the best", **style)


def _axes(axes: Axes, keys: list[Key], own: str) -> None:
    axes.axvline(1.0, color=OWN_COLOR, linewidth=2.0, label=TITLES[own])
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(range(len(keys)), [title(key).replace(": ", ":\n") for key in keys])
    axes.set_ylim(len(keys) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.25)
    axes.set_xlabel("time of a step in units of lrfused's: median, and eight rounds of ten")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=4, frameon=False)

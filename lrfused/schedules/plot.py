"""Plots schedules; matplotlib is imported only here, when a plot is drawn."""

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lrfused.schedules.check import whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class HasValues(Protocol):
    """Anything that can be plotted: a Schedule."""

    def values(self, steps: ArrayLike) -> NDArray[np.float64]:
        """The values at these steps."""


def plot_schedule(schedule: HasValues, steps: int, ax: "Axes | None") -> "Axes":
    """Draw the first ``steps`` values; a new figure unless ``ax`` is given."""
    whole("steps", steps, minimum=1)
    from matplotlib import pyplot

    if ax is None:
        _, ax = pyplot.subplots()
    ax.plot(range(steps), schedule.values(range(steps)))
    ax.set_xlabel("completed updates")
    ax.set_ylabel("value")
    return ax

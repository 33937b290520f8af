"""Pictures of schedules; matplotlib is imported only here, when one is drawn."""

from typing import TYPE_CHECKING

from lrfused.schedules.check import whole
from lrfused.schedules.expression import Schedule

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_schedule(schedule: Schedule, steps: int, ax: "Axes | None") -> "Axes":
    """Draw the first ``steps`` values; a new figure unless ``ax`` is given."""
    whole("steps", steps, minimum=1)
    from matplotlib import pyplot

    if ax is None:
        _, ax = pyplot.subplots()
    ax.plot(range(steps), schedule.values(range(steps)))
    ax.set_xlabel("completed updates")
    ax.set_ylabel("value")
    return ax

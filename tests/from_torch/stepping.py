"""torch's side: optimizers with groups, schedulers stepped, and how the two sides are compared."""

import numpy as np
import torch

from lrfused.schedules import Schedule, from_torch


def optimizer(*lrs, kind=torch.optim.AdamW, **options):
    """An optimizer with one group for each lr."""
    groups = [{"params": [torch.nn.Parameter(torch.zeros(2))], "lr": lr} for lr in lrs]
    return kind(groups, **options)


def in_groups(optimizer, what="lr"):
    """What stands in the groups: the lr, or the momentum (beta1)."""
    if what == "lr":
        return [float(group["lr"]) for group in optimizer.param_groups]
    return [
        float(group["betas"][0] if "betas" in group else group["momentum"])
        for group in optimizer.param_groups
    ]


def stepped(scheduler, steps, *whats):
    """For each of ``whats`` an array (step, group) of what torch sets at steps 0 .. steps - 1.

    They are shorter where torch refuses to go on.
    """
    rows = {what: [in_groups(scheduler.optimizer, what)] for what in whats}
    for _ in range(steps - 1):
        scheduler.optimizer.step()
        try:
            scheduler.step()
        except (ValueError, ZeroDivisionError):  # beyond OneCycleLR's total_steps
            break
        for what in whats:
            rows[what].append(in_groups(scheduler.optimizer, what))
    return [np.array(rows[what]) for what in whats]


def one_a_group(schedules, groups):
    """from_torch's result as a list."""
    if isinstance(schedules, Schedule):
        return [schedules] * groups
    assert len(schedules) == groups and len(set(schedules)) > 1
    return schedules


def assert_parity(scheduler, steps, *whats, rtol=1e-6):
    """The schedules, made before the first step, are what the scheduler then sets.

    Relative to each value. What torch's recursions leave where they cancel to nothing counts as
    0: that is what the absolute part is for.
    """
    __tracebackhide__ = True
    whats = whats or ("lr",)
    groups = len(scheduler.optimizer.param_groups)
    made = [one_a_group(from_torch(scheduler, what=what), groups) for what in whats]
    expected = stepped(scheduler, steps, *whats)
    for what, schedules, rows in zip(whats, made, expected, strict=True):
        for g, (schedule, column) in enumerate(zip(schedules, rows.T, strict=True)):
            np.testing.assert_allclose(
                schedule.values(range(len(column))),
                column,
                rtol=rtol,
                atol=1e-12 * np.abs(column).max(),
                err_msg=f"{what} of group {g}: {schedule!r}",
            )

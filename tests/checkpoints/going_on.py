"""A checkpoint is made, the run goes on; what loads the checkpoint must go on in the same way."""

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import quiet
from .carriers import CARRIERS, Carrier
from .cells import Job
from .scenarios import AFTER, BEFORE, Scenario
from .settings import inner
from .training import Run

USED = 8  # steps of an optimizer that was used for something else, more than the checkpoint's
COUNTERS = ("steps", "skipped_steps", "consecutive_skips", "clipped_steps", "loss_scale")
Standing = dict[str, Any]


class Moment(NamedTuple):
    """Where a run stands, and, at its end, what another checkpoint would carry."""

    standing: Standing
    metrics: dict[str, Any]
    carried: Standing


def train(run: Run) -> None:
    """The steps before the checkpoint."""
    run.write_inputs(0.7)  # never again: only the checkpoint can bring it back
    for t in range(BEFORE):
        run.step(t)


def uninterrupted(run: Run) -> list[Moment]:
    """Where the run stands at the checkpoint and after each step that follows."""
    moments = [Moment(run.standing(), run.metrics(), {})]
    for t in range(BEFORE, BEFORE + AFTER):
        if run.scenario.written_lr is not None:
            run.write_lr(run.scenario.written_lr(t))
        run.step(t)
        metrics = run.metrics()
        moments.append(Moment(run.standing(), metrics, {}))
    return [*moments[:-1], moments[-1]._replace(carried=run.carried())]


def check_is_worth_it(scenario: Scenario, moments: list[Moment]) -> None:
    """The uninterrupted run has seen what the scenario is about."""
    last = moments[-1].metrics
    if scenario.classes[0] == "lrfused":
        assert {name: last[name] for name in scenario.metrics} == dict(scenario.metrics)
    if scenario.scales:
        assert tuple(m.metrics["loss_scale"] for m in moments[1:]) == scenario.scales


def used(run: Run) -> None:
    """The optimizer has trained on something else, with skips and all parameters."""
    run.write_inputs(0.3)
    for t in range(20, 20 + USED):
        run.step(t, "other")


def resume(job: Job, load: Callable[[Run], None], into: str, seed: int, way: list[Moment]) -> None:
    """Load into an optimizer and go beside the run that was not interrupted."""
    run = Run(job.setting, job.scenario, seed, later=True)
    if into.startswith("used"):
        used(run)
    parameters = [value for name, value in way[0].standing.items() if name.startswith("parameter")]
    run.take_parameters(parameters)
    if says_no_step(job.scenario):
        inner(run.opt).set_step(BEFORE)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load(run)
        if job.into[into]:
            compare(run, way[0], "after the load", COUNTERS)
        for step, moment in enumerate(way[1:], BEFORE):
            run.step(step)
            compare(run, moment, f"after step {step}", tuple(moment.metrics))
        if not differs(job.scenario):
            assert_equal(run.carried(), way[-1].carried, "in another checkpoint")
    check_warnings(job.scenario, quiet.others(caught))


def check_warnings(scenario: Scenario, messages: list[str]) -> None:
    """One that says all that differs, or none."""
    assert len(messages) == bool(scenario.warns), f"warnings: {messages}"
    for message in messages:
        missing = [text for text in scenario.warns if text not in message]
        assert not missing, f"{missing} not said: {message}"


def says_no_step(scenario: Scenario) -> bool:
    """A checkpoint of torch's without counts, of which the caller has to say the step."""
    return scenario.classes == ("torch", "lrfused") and not scenario.kind.counts


def differs(scenario: Scenario) -> bool:
    """What loads was not made as what saved."""
    later = (scenario.later_options, scenario.later_groups)
    return later != (None, None) or scenario.classes[0] != scenario.classes[1]


def compare(run: Run, moment: Moment, when: str, names: tuple[str, ...]) -> None:
    """Bit-equal; near where the other class steps."""
    scenario, metrics = run.scenario, run.metrics()
    if scenario.classes == ("lrfused", "lrfused"):
        compared = [name for name in COUNTERS[:-1] if name in names] if differs(scenario) else names
        assert_equal(
            {n: metrics[n] for n in compared}, {n: moment.metrics[n] for n in compared}, when
        )
    found, expected = run.standing(), moment.standing
    if scenario.classes[0] != scenario.classes[1]:
        found, expected = (_of_both(scenario, standing) for standing in (found, expected))
    if differs(scenario):
        found, expected = _without_groups(found), _without_groups(expected)
    assert_equal(found, expected, when, near=scenario.classes[0] != scenario.classes[1])
    if scenario.written_lr is not None:
        # the schedule of each group leads from where the checkpoint stands
        count = metrics["steps"]
        shown = [float(group["lr"]) for group in inner(run.opt).param_groups]
        assert shown == [scenario.written_lr(count)] * len(shown), f"{when}: lr {shown}"


def _without_groups(standing: Standing) -> Standing:
    return {name: value for name, value in standing.items() if " of group " not in name}


def _of_both(scenario: Scenario, standing: Standing) -> Standing:
    """Without what only the state of one of the classes shows."""
    own = scenario.kind.own
    return {name: value for name, value in standing.items() if name.split(" of ")[0] not in own}


def assert_equal(found: Standing, expected: Standing, when: str, near: bool = False) -> None:
    """The same names with the same bits; ``near``: within 1e-6."""
    missing, more = expected.keys() - found.keys(), found.keys() - expected.keys()
    assert not missing and not more, f"{when}: missing {sorted(missing)}, more {sorted(more)}"
    different = [
        f"{name} is {found[name]}, not {value}"
        for name, value in expected.items()
        if not _same(found[name], value, near)
    ]
    assert not different, f"{when}: {len(different)} differ: " + "; ".join(different[:4])


def _same(a: Any, b: Any, near: bool) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if near:
            return torch.allclose(a.double(), b.double(), rtol=1e-6, atol=1e-6)
        if a.dtype != b.dtype or a.shape != b.shape:
            return False
        return bool(((a == b) | (a.isnan() & b.isnan())).all())
    return type(a) is type(b) and a == b


Record = Callable[[str, Callable[[], None]], None]


def go(job: Job, chosen: list[str], folder: Path, seed: int, record: Record) -> None:
    """The chosen cells of a job."""
    carrier = CARRIERS[job.carrier]
    run = Run(job.setting, job.scenario, seed)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(run)
        saved = carrier.save(run, folder)
        way = uninterrupted(run)
    assert not quiet.others(caught), f"warnings: {quiet.others(caught)}"
    check_is_worth_it(job.scenario, way)
    for into, cell in zip(job.into, job.cells, strict=True):
        if cell in chosen:
            record(
                cell, partial(resume, job, partial(_load, carrier, saved, folder), into, seed, way)
            )


def _load(carrier: Carrier, saved: Any, folder: Path, run: Run) -> None:
    carrier.load(run, saved, folder)

"""How long plan takes one after the other, of what is counted: a model of few constants.

A part takes, for each of its turns, its dependent loads times what a load takes, and once its
instructions times CYCLES: code that runs once in a step is fetched while it runs.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from counted.parts import Part

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
CLOCK = 1.7e9  # of an H200's multiprocessor
L2, MEMORY = 0.27, 0.70  # microseconds of a load
LAUNCH = 3.0  # microseconds of an empty kernel, between two events
INTERPRETED = (
    6.4 / 19
)  # microseconds: the 19 instructions of a warm-up and a cosine (gpu-plan.json)
OF_RULE = 11  # instructions of AdamW's scalars
THREADS, SPAN = 128, 256
# Done by the first block before it measures, since 20b6cca.
PREPARED = ("hyperparameters", "what is wrong", "leaders", "rows")


@dataclass(frozen=True)
class Work:
    """What there is to plan."""

    title: str
    groups: int = 1
    tensors: int = 148
    chunks: int = 1995
    units: int = 0  # of several chunks, clipped adaptively: each waits in a block of its own
    program: int = 19  # instructions of each group's schedule

    @property
    def spans(self) -> int:
        return -(-self.chunks // SPAN)


# What a part's turns are, in words.
TURNS_OF = {
    "hyperparameters": "groups / 128",
    "what is wrong": "tensors / 128, or 16 groups / 128",
    "leaders": "tensors / 128",
    "rows": "1 + tensors / 128",
    "a unit": "1 if there are any: each has a block",
    "a span": "1: each has a block",
    "sums of spans": "chunks / 65536",
    "fields": "16 groups / 128",
    "updates": "tensors / 256",
    "decision": "1",
    "tickets": "of the last span and the step; of a unit",
}
SLOTS = 16  # most hyperparameters of a group
GPT2 = Work("GPT-2, a cosine")
CASES = (
    replace(GPT2, title="one tensor of one chunk", tensors=1, chunks=1),
    replace(GPT2, title="GPT-2 without a schedule", program=0),
    GPT2,
    replace(GPT2, title="GPT-2 in 148 groups", groups=148),
    replace(GPT2, title="1000 tensors of 64", tensors=1000, chunks=1000),
    Work("2000 tensors of 4096", tensors=2000, chunks=2000),
    Work("GPT-3 1.3B", tensors=292, chunks=20261),
    Work("LLaMA 7B", tensors=291, chunks=102881),
    replace(GPT2, title="GPT-2, 100 units of several chunks clipped adaptively", units=100),
)


def turns(name: str, work: Work) -> int:
    """Of a part: how often its loads come one after the other."""
    per_tensor = -(-work.tensors // THREADS)
    return {
        "hyperparameters": -(-work.groups // THREADS),
        "what is wrong": max(per_tensor, -(-work.groups * SLOTS // THREADS)),
        "leaders": per_tensor,
        "rows": 1 + per_tensor,
        "a unit": min(work.units, 1),
        "a span": 1,
        "sums of spans": -(-work.spans // SPAN),
        "fields": -(-work.groups * SLOTS // THREADS),
        "updates": -(-work.tensors // (2 * THREADS)),
        "decision": 1,
        "tickets": 2 + min(work.units, 1),  # of a span, of the step; of a unit
    }[name]


@dataclass(frozen=True)
class Model:
    """``cycles``: of an instruction that runs once."""

    parts: Mapping[str, Part]
    cycles: float
    load: float = L2

    def of(self, name: str, work: Work) -> float:
        """Microseconds of a part."""
        part, count = self.parts[name], turns(name, work)
        if not count:
            return 0.0
        time = part.instructions * self.cycles / CLOCK * 1e6 + count * part.loads * self.load
        if name == "hyperparameters":
            time += count * work.program * INTERPRETED
        if name == "rows":
            time += OF_RULE * INTERPRETED * max(1, -(-work.groups // THREADS))
        return time

    def prepared(self, work: Work) -> float:
        return sum(self.of(name, work) for name in PREPARED)

    def before_norm(self, work: Work) -> float:
        """From the last part to where its span's sums are known."""
        return sum(self.of(name, work) for name in ("a unit", "a span", "tickets"))

    def behind(self, work: Work) -> float:
        """What comes after the last part of measure."""
        rest = ("sums of spans", "fields", "updates", "decision")
        return self.before_norm(work) + sum(self.of(name, work) for name in rest)

    def alone(self, work: Work) -> float:
        """A launch of plan, of a block for each span, of which the first one prepares."""
        both = max(self.prepared(work), self.before_norm(work))
        return LAUNCH + both + self.behind(work) - self.before_norm(work)

    def one_after_the_other(self, work: Work) -> float:
        """As it was before the first block prepared."""
        return LAUNCH + self.prepared(work) + self.behind(work)


def fitted(parts: Mapping[str, Part]) -> Model:
    """The cycles that make plan, all of it in one block, as long as it was measured to be."""
    rest = Model(parts, 0.0).one_after_the_other(GPT2)
    instructions = sum(part.instructions for name, part in parts.items() if turns(name, GPT2))
    return Model(parts, (measured_plan() - rest) * 1e-6 * CLOCK / instructions)


def measured_plan() -> float:
    """Of GPT-2 in float32, by the run whose plan was in one block."""
    record = json.loads((RESULTS / "gpu-phases.json").read_text(encoding="utf-8"))
    return float(record["cases"][0]["seconds"]["plan"]) * 1e6

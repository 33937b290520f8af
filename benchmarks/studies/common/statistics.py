"""Differences paired by seed, their intervals, and what follows for a claim."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Values = NDArray[np.float64]
CONFIDENCE, POWER = 0.95, 0.8
CLAIM, INSTEAD = "claim", "instead"  # that the mean is above a margin
CONTROL, AGREEMENT = "control", "agreement"  # that it is within a margin around 0
TWO_SIDED = (CONTROL, AGREEMENT)
CONFIRMED, PARTLY, REFUTED = "confirmed", "partly confirmed", "refuted"
UNDECIDED = "undecided"


@dataclass(frozen=True)
class Statement:
    """What a study says of one number, measured once for each seed.

    A claim, or what holds instead of one, says that the mean is above ``margin``; a control, or the
    agreement of a prediction with a measurement, that it is within +- ``margin``. Any of them holds
    when the whole interval says so.
    """

    kind: str
    text: str
    unit: str
    margin: float
    values: list[float]
    mean: float
    low: float
    high: float
    smallest: float  # what the mean has to be to be seen above the margin, or 0, in POWER of runs

    @property
    def holds(self) -> bool:
        if self.kind in TWO_SIDED:
            return -self.margin <= self.low and self.high <= self.margin
        return self.low > self.margin

    @property
    def fails(self) -> bool:
        """Of a claim: the whole interval is below the margin, which is more than not to hold."""
        return self.high < self.margin

    def plain(self) -> dict[str, Any]:
        return {**asdict(self), "holds": self.holds}

    @classmethod
    def of(cls, plain: dict[str, Any]) -> "Statement":
        """What `plain` gave."""
        return cls(**{field.name: plain[field.name] for field in fields(cls)})


def larger(text: str, values: ArrayLike, *, than: float, unit: str) -> Statement:
    """The claim that a number, usually a difference of two arms, is larger than a margin."""
    return _statement(CLAIM, text, values, than, unit)


def instead(text: str, values: ArrayLike, *, than: float, unit: str) -> Statement:
    """What holds where a claim does not."""
    return _statement(INSTEAD, text, values, than, unit)


def absent(text: str, values: ArrayLike, *, within: float, unit: str) -> Statement:
    """The control, in which the same number must be 0 but for a margin."""
    return _statement(CONTROL, text, values, within, unit)


def agrees(text: str, values: ArrayLike, *, within: float, unit: str) -> Statement:
    """That what is measured is what was predicted: their difference is 0 but for a margin."""
    return _statement(AGREEMENT, text, values, within, unit)


def _statement(kind: str, text: str, values: ArrayLike, margin: float, unit: str) -> Statement:
    two_sided = kind in TWO_SIDED
    if not (0.0 < margin < math.inf or (margin == 0.0 and not two_sided)):
        raise ValueError(f"margin of {text!r}: must be finite and not negative, got {margin}")
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or len(found) < 2 or not np.isfinite(found).all():
        raise ValueError(f"values of {text!r}: must be 2 or more finite numbers, got {found}")
    mean, half = interval(found)
    beyond = half * (1.0 + _quantile(POWER, len(found)) / _quantile(_upper(), len(found)))
    smallest = beyond if two_sided else margin + beyond
    return Statement(
        kind, text, unit, margin, found.tolist(), mean, mean - half, mean + half, smallest
    )


def interval(values: Values) -> tuple[float, float]:
    """The mean over the first axis, and half of the width of its interval (Student's t)."""
    mean, half = intervals(values[:, None])
    return float(mean[0]), float(half[0])


def intervals(values: Values) -> tuple[Values, Values]:
    """The same for each column of seeds x places."""
    count = len(values)
    spread = values.std(axis=0, ddof=1) / math.sqrt(count)
    return values.mean(axis=0), _quantile(_upper(), count) * spread


def _upper() -> float:
    return 0.5 + CONFIDENCE / 2


def _quantile(probability: float, count: int) -> float:
    return float(stats.t.ppf(probability, count - 1))


def verdict(statements: Sequence[Statement]) -> str:
    """What the statements say together.

    confirmed           every claim holds, and all else that is stated
    refuted             no claim holds, and every interval is below its margin
    partly confirmed    of some claims one, of others the other
    undecided           an interval contains its margin, or something else does not hold
    """
    claims = [statement for statement in statements if statement.kind == CLAIM]
    others = [statement for statement in statements if statement.kind != CLAIM]
    decided = all(claim.holds or claim.fails for claim in claims)
    if not claims or not decided or not all(statement.holds for statement in others):
        return UNDECIDED
    if all(claim.holds for claim in claims):
        return CONFIRMED
    return PARTLY if any(claim.holds for claim in claims) else REFUTED

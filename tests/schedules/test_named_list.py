"""What holds for every named schedule: size, shape, exact argument types, values."""

import numpy as np
import pytest
from lib.schedule_values import assert_same_bits

from lrfused import schedules as S

from .named import BUILDING_BLOCKS, ROWS

INSTRUCTIONS = 48

every_name = pytest.mark.parametrize("name", list(ROWS))


def test_every_named_schedule_has_its_row():
    assert set(S.__all__) == set(ROWS) | BUILDING_BLOCKS


@every_name
def test_a_few_dozen_instructions_at_most(name):
    make, one, other, _ = ROWS[name]
    assert len(make(**one).program.code) <= INSTRUCTIONS
    assert len(make(**other).program.code) <= INSTRUCTIONS


@pytest.mark.parametrize("shape", ["linear", "cosine", "sqrt", "exponential"])
@pytest.mark.parametrize("start", [0.25, "1/n"])
def test_the_longest_compositions_are_short_too(shape, start):
    wsd = S.wsd(1.0, 10, 20, 30, 0.1, shape=shape, start=start)
    assert len(wsd.program.code) <= INSTRUCTIONS
    for kind in ("linear", "cosine", "exponential", "polynomial"):
        warmed = S.warmup(wsd, 5, start=start, shape=kind, power=1.5)
        assert len(warmed.program.code) <= INSTRUCTIONS
    for kind in ("linear", "cosine"):
        cycle = S.one_cycle(1.0, 50, shape=kind, three_phase=True)
        assert len(cycle.program.code) <= INSTRUCTIONS


@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize("cycles", [1, 2, 3, 10, 30])
def test_restarts_take_three_instructions_a_cycle_at_most(factor, cycles):
    restarts = S.cosine_restarts(1.0, 0.1, 7, factor, cycles)
    assert len(restarts.program.code) <= 15 + 3 * (cycles - 1)


@every_name
def test_other_numbers_are_the_same_program(name):
    make, one, other, _ = ROWS[name]
    assert make(**one) != make(**other)
    assert make(**one).program.shape == make(**other).program.shape


@every_name
def test_values_are_finite_and_not_negative(name):
    make, one, other, _ = ROWS[name]
    for settings in (one, other):
        values = make(**settings).values([*range(500), 10**6, 2**40, 2**53])
        assert np.isfinite(values).all()
        assert (values >= 0.0).all()


@every_name
@pytest.mark.parametrize(("integer", "real"), [(np.int8, np.float32), (np.int64, np.float64)])
def test_numpy_numbers_mean_what_python_numbers_mean(name, integer, real):
    """The numbers of the rows are exact in these types; sums of the lengths are not."""

    def converted(value):
        if type(value) is int:
            return integer(value)
        if type(value) is float:
            return real(value)
        if name == "multi_step" and isinstance(value, list):
            return [integer(v) for v in value]
        return value

    make, one, other, _ = ROWS[name]
    for settings in (one, other):
        got = make(**{k: converted(v) for k, v in settings.items()})
        assert got == make(**settings)


@every_name
def test_vectorised_values_equal_calls(name):
    make, one, other, _ = ROWS[name]
    for settings in (one, other):
        schedule = make(**settings)
        steps = [*range(0, 400, 7), 2**40 + 1, 2**53]
        assert_same_bits(schedule.values(steps), [schedule(t) for t in steps])

"""exp, log, cos and pow: accuracy against mpmath, special values, C++ equal to Python."""

import math
import re
from pathlib import Path

import mpmath
import numpy as np
import pytest
from lib.random_schedules import SPECIAL, WORST_FOR_COS
from lib.schedule_values import assert_same_bits, ulp_error

from lrfused.native import cpu, why_not_cpu
from lrfused.numerics import elementary

INF, NAN = math.inf, math.nan
HEADER = Path(__file__).parents[2] / "csrc" / "core" / "elementary.h"
FUNCTIONS = {
    "exp": elementary.exp,
    "log": elementary.log,
    "cos": elementary.cos,
    "pow": elementary.power,
}
COUNT = 3000

needs_cpp = pytest.mark.skipif(cpu is None, reason=f"no C++ evaluator: {why_not_cpu}")


def call(name, *arguments):
    with np.errstate(all="ignore"):
        return FUNCTIONS[name](*(np.array(a, dtype=np.float64) for a in arguments))


def any_floats(rng, low=0, high=2**64):
    """Floats whose bit patterns are uniform: every exponent equally often."""
    return rng.integers(low, high, COUNT, dtype=np.uint64).view(np.float64)


def signed_powers_of_two(rng, low, high):
    return rng.choice([-1.0, 1.0], COUNT) * 2.0 ** rng.uniform(low, high, COUNT)


def multiples_of(angle, factors):
    return [float(int(k) * angle) for k in factors]


FIRST_SUBNORMAL_EXP, LAST_FINITE_EXP = -745.1332191019411, 709.782712893384
SMALLEST_NORMAL, INFINITY_BITS = 0x0010000000000000, 0x7FF0000000000000

ARGUMENTS = {
    "exp": {
        "whole range": lambda r: r.uniform(FIRST_SUBNORMAL_EXP, LAST_FINITE_EXP, COUNT),
        "subnormal results": lambda r: r.uniform(-745.2, -708.0, COUNT),
        "near overflow": lambda r: r.uniform(709.7, 709.8, COUNT),
        "small": lambda r: signed_powers_of_two(r, -80, 0),
        "between multiples of ln 2": lambda r: (r.integers(-1070, 1020, COUNT) + 0.5) * math.log(2),
        "the ends": lambda r: np.array(
            [FIRST_SUBNORMAL_EXP, -745.1332191019412, LAST_FINITE_EXP, 709.7827128933841, 0.0]
        ),
    },
    "log": {
        "whole range": lambda r: any_floats(r, 1, INFINITY_BITS),
        "subnormal arguments": lambda r: any_floats(r, 1, SMALLEST_NORMAL),
        "around 1": lambda r: r.uniform(0.5, 2.0, COUNT),
        "near 1": lambda r: 1.0 + signed_powers_of_two(r, -53, -2),
        "where the exponent changes": lambda r: (
            math.sqrt(0.5) * (1.0 + signed_powers_of_two(r, -53, -20))
        ),
    },
    "cos": {
        "whole range": lambda r: any_floats(r, 0, INFINITY_BITS),
        "few turns": lambda r: r.uniform(-20.0, 20.0, COUNT),
        "small": lambda r: signed_powers_of_two(r, -40, 0),
        "large": lambda r: signed_powers_of_two(r, 50, 1023),
        "near small multiples of pi/4": lambda r: multiples_of(mpmath.pi / 4, range(COUNT)),
        "near large multiples of pi/2": lambda r: multiples_of(
            mpmath.pi / 2, r.integers(1, 2**52, COUNT)
        ),
        "the known worst case": lambda r: [WORST_FOR_COS, -WORST_FOR_COS],
    },
}


@pytest.mark.parametrize(
    ("name", "region"), [(name, region) for name in ARGUMENTS for region in ARGUMENTS[name]]
)
def test_within_2_ulp_of_the_true_value(rng, name, region):
    with mpmath.workprec(200):
        arguments = np.asarray(ARGUMENTS[name][region](rng.numpy), dtype=np.float64)
        true = getattr(mpmath, name)
        errors = [
            ulp_error(float(y), true(mpmath.mpf(float(x))))
            for x, y in zip(arguments, call(name, arguments), strict=True)
        ]
    worst = int(np.argmax(errors))
    assert errors[worst] <= 2.0, f"{name}({arguments[worst]!r}) is {errors[worst]:.2f} ulp off"


@pytest.mark.parametrize(
    ("name", "x", "want"),
    [
        ("exp", 0.0, 1.0),
        ("exp", -0.0, 1.0),
        ("exp", INF, INF),
        ("exp", -INF, 0.0),
        ("exp", NAN, NAN),
        ("exp", 709.7827128933841, INF),
        ("exp", 1e300, INF),
        ("exp", -746.0, 0.0),
        ("exp", -1e300, 0.0),
        ("exp", FIRST_SUBNORMAL_EXP, 5e-324),
        ("log", 1.0, 0.0),
        ("log", 0.0, -INF),
        ("log", -0.0, -INF),
        ("log", INF, INF),
        ("log", -INF, NAN),
        ("log", -5e-324, NAN),
        ("log", NAN, NAN),
        ("cos", 0.0, 1.0),
        ("cos", -0.0, 1.0),
        ("cos", 5e-324, 1.0),
        ("cos", INF, NAN),
        ("cos", -INF, NAN),
        ("cos", NAN, NAN),
    ],
)
def test_special_values(name, x, want):
    assert_same_bits(call(name, [x]), [want])


# The rules of C (Annex F) for pow.
POW_SPECIALS = [
    *((x, y, 1.0) for x in (0.0, -0.0, 5.0, -5.0, INF, -INF, NAN) for y in (0.0, -0.0)),
    *((1.0, y, 1.0) for y in (0.5, -7.0, 1e300, INF, -INF, NAN)),
    *((-1.0, y, 1.0) for y in (INF, -INF, 2.0**53, 1e300, 4.0)),
    *((x, y, NAN) for x in (-8.0, -0.5, -1.0, -1e300) for y in (0.5, -0.5, 1 / 3, 2.5)),
    *((NAN, y, NAN) for y in (1.0, -1.0, 0.5, INF, -INF, NAN)),
    *((x, NAN, NAN) for x in (0.0, -0.0, 2.0, -1.0, INF, -INF)),
    *((0.0, y, INF) for y in (-1.0, -2.0, -0.5, -INF, -1e300)),
    *((0.0, y, 0.0) for y in (1.0, 2.0, 0.5, INF, 1e300)),
    *((-0.0, y, -INF) for y in (-1.0, -3.0)),
    *((-0.0, y, INF) for y in (-2.0, -0.5, -INF, -1e300)),
    *((-0.0, y, -0.0) for y in (1.0, 3.0)),
    *((-0.0, y, 0.0) for y in (2.0, 0.5, INF, 1e300)),
    *((x, INF, 0.0) for x in (0.5, -0.5)),
    *((x, -INF, INF) for x in (0.5, -0.5)),
    *((x, INF, INF) for x in (2.0, -2.0, INF, -INF)),
    *((x, -INF, 0.0) for x in (2.0, -2.0, INF, -INF)),
    *((INF, y, INF) for y in (1.0, 2.0, 0.5, 1e300)),
    *((INF, y, 0.0) for y in (-1.0, -2.0, -0.5, -1e300)),
    *((-INF, y, -INF) for y in (1.0, 3.0)),
    *((-INF, y, INF) for y in (2.0, 0.5, 2.5, 1e300)),
    *((-INF, y, -0.0) for y in (-1.0, -3.0)),
    *((-INF, y, 0.0) for y in (-2.0, -0.5, -2.5, -1e300)),
]


@pytest.mark.parametrize(("x", "y", "want"), POW_SPECIALS)
def test_pow_specials_are_those_of_c(x, y, want):
    assert_same_bits(call("pow", [x], [y]), [want])


def test_pow_of_whole_numbers_is_exact():
    for base in (2, 3, 5, 7, 10, -3):
        exponents = [n for n in range(60) if abs(base) ** n <= 2**53]
        got = call("pow", np.full(len(exponents), base), exponents)
        assert_same_bits(got, [float(base**n) for n in exponents])
    assert_same_bits(call("pow", [2.0, 2.0, 0.5], [1023, -1022, 3]), [2.0**1023, 2.0**-1022, 0.125])


def test_pow_is_as_good_as_its_formula(rng):
    """exp(y log x): one ulp of the product y log x is |y log x| ulp of the result."""
    x, y = 2.0 ** rng.numpy.uniform(-9, 9, COUNT), rng.numpy.uniform(-60, 60, COUNT)
    with mpmath.workprec(200):
        for a, b, got in zip(x.tolist(), y.tolist(), call("pow", x, y).tolist(), strict=True):
            error = ulp_error(got, mpmath.mpf(a) ** mpmath.mpf(b))
            assert error <= 4.0 * (1.0 + abs(b * math.log(a))), (a, b, error)


def two_over_pi_words():
    """The binary digits of 2/pi in 32-bit words, after 96 zero bits, from mpmath."""
    with mpmath.workprec(1400):
        digits = int(mpmath.floor(2 / mpmath.pi * mpmath.mpf(2) ** (37 * 32)))
    return [0, 0, 0, *((digits >> (32 * (36 - i))) & 0xFFFFFFFF for i in range(37))]


def test_the_digits_of_two_over_pi():
    source = HEADER.read_text()
    table = source[source.index("two_over_pi = {{") : source.index("}};")]
    in_header = [int(word, 16) for word in re.findall(r"0x[0-9A-F]{8}", table)]
    assert in_header == two_over_pi_words()
    assert elementary.TWO_OVER_PI.tolist() == two_over_pi_words()


def test_the_parts_of_pi_and_ln_2():
    with mpmath.workprec(200):
        half_pi, ln_2 = mpmath.pi / 2, mpmath.log(2)
        assert float(half_pi) == elementary.PIO2
        assert elementary.PIO2_HIGH + elementary.PIO2_LOW == elementary.PIO2
        assert float(half_pi - mpmath.mpf(elementary.PIO2)) == elementary.PIO2_REST
        assert float(ln_2 - mpmath.mpf(elementary.LN2_HI)) == elementary.LN2_LO
    assert all(float(k * elementary.LN2_HI) == k * elementary.LN2_HI for k in range(1, 1100))


@needs_cpp
@pytest.mark.parametrize("name", ["exp", "log", "cos"])
def test_cpp_equals_python(rng, name):
    r = rng.numpy
    x = [SPECIAL, *(any_floats(r) for _ in range(30)), r.uniform(-760, 760, 20000)]
    x += [np.asarray(make(r), dtype=np.float64) for make in ARGUMENTS[name].values()]
    x = np.concatenate(x)
    assert_same_bits(cpu.elementary(name, x, x), call(name, x), of=(x,))


@needs_cpp
def test_cpp_pow_equals_python(rng):
    r = rng.numpy
    special = np.array(SPECIAL)
    pairs = [
        (np.repeat(special, special.size), np.tile(special, special.size)),
        tuple(np.concatenate([any_floats(r) for _ in range(20)]) for _ in range(2)),
        (r.uniform(0, 3, 20000), r.uniform(-300, 300, 20000)),
        (np.concatenate([any_floats(r) for _ in range(10)]), r.integers(-99, 99, 10 * COUNT)),
        (r.uniform(0.9, 1.1, 20000), np.floor(2.0 ** r.uniform(0, 62, 20000))),
        (r.uniform(-2, 2, 20000), r.integers(-(2**40), 2**40, 20000)),
    ]
    x, y = (np.concatenate(side).astype(np.float64) for side in zip(*pairs, strict=True))
    assert_same_bits(cpu.elementary("pow", x, y), call("pow", x, y), of=(x, y))

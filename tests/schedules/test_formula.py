"""What a schedule looks like: repr and plot."""

import ast
import math
import operator
import re
import subprocess
import sys
from fractions import Fraction

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from lrfused import schedules as S

t = S.step


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        (S.constant(1e-3), "0.001"),
        (t, "step"),
        (t + 1, "step + 1"),
        (2 - t, "2 - step"),
        (1e-05 * t, "1e-05 * step"),
        (t - (t - 3), "step - (step - 3)"),
        (8 / (t / 2), "8 / (step / 2)"),
        (t / (2 * t), "step / (2 * step)"),
        ((t + 1) * 2, "(step + 1) * 2"),
        (t % 7 + 1, "step % 7 + 1"),
        (t * (t % 7), "step * (step % 7)"),
        ((t % 7) * t, "step % 7 * step"),
        (t**2, "step**2"),
        ((t**2) ** 3, "(step**2)**3"),
        (t ** (t**2), "step**step**2"),
        ((t + 1) ** (t / 2), "(step + 1)**(step / 2)"),
        (-t, "(-1) * step"),
        (t * -2.5, "step * (-2.5)"),
        ((-2.0) ** t, "(-2)**step"),
        (S.minimum(t, -1), "min(step, -1)"),
        (S.cos(S.floor(t / 2)), "cos(floor(step / 2))"),
        (S.select(S.less(t, 5), 1.0, S.sqrt(t)), "select(step < 5, 1, sqrt(step))"),
        (S.less_equal(t + 1, 5) + 1, "(step + 1 <= 5) + 1"),
        (S.less(S.less(t, 3), 1), "(step < 3) < 1"),
        (S.equal(1, S.less(t, 3)), "1 == (step < 3)"),
        (t + math.inf, "step + inf"),
        (t * math.nan, "step * nan"),
        (t - math.inf, "step - inf"),
        (t + -math.inf, "step + (-inf)"),
        (S.input(torch.tensor(1.0), "noise") * 2, "input('noise') * 2"),
        (S.table([1.0, 2.0, 3.0]), "table[3](step)"),
        (S.table([1.0]).at(t / 2) + 1, "table[1](step / 2) + 1"),
        (S.linear(0.0, 1.0, 10), "1 * x + 0 * (1 - x) where x = min(step, 10) / 10"),
        (S.step_decay(0.1, 0.5, 30), "0.1 * 0.5**floor(step / 30)"),
        (S.multi_step(0.1, 0.5, [3, 6]), "0.1 * 0.5**((3 <= step) + (6 <= step))"),
    ],
)
def test_readable(schedule, text):
    assert repr(schedule) == f"Schedule({text})"


def test_parts_that_are_used_twice_are_named_in_order():
    part = S.cos(t / 4)
    square = part * part
    assert repr(square + square) == "Schedule(y + y where x = cos(step / 4), y = x * x)"


def test_long_ones_say_how_long_they_are():
    long = sum((S.sqrt(t + i) for i in range(30)), start=t)
    assert repr(long) == f"Schedule({len(long.program.code)} instructions)"


def test_shared_parts_do_not_make_a_formula_explode():
    doubled = t
    for _ in range(40):
        doubled = doubled + doubled
    assert len(repr(doubled)) < 2000


# The formula, read as ordinary notation, is the schedule: both evaluated in exact fractions.

small = st.integers(-6, 6).map(lambda n: n / 2)
OPERATIONS = [
    *(operator.add, operator.sub, operator.mul, operator.truediv, operator.mod),
    *(S.less, S.less_equal, S.equal, S.maximum, S.minimum),
]


@st.composite
def fractional(draw):
    """Expressions whose values are exact fractions."""
    pool = [t, S.floor(t / 2), draw(small) * t]
    for _ in range(draw(st.integers(1, 7))):
        x, y, z = (draw(st.sampled_from(pool)) for _ in range(3))
        number, exponent = draw(small), draw(st.integers(0, 3))
        choices = [S.select(x, y, z), S.floor(x), number - x, x - number, x**exponent]
        choices += [operation(x, y) for operation in OPERATIONS]
        pool.append(draw(st.sampled_from(choices)))
    return pool[-1]


FUNCTIONS = {
    "min": min,
    "max": max,
    "floor": lambda x: Fraction(math.floor(x)),
    "select": lambda condition, x, y: x if condition else y,
    "Fraction": Fraction,
}


def read(text, step):
    """The value of a formula, as a person would work it out."""
    body, _, where = text.removeprefix("Schedule(")[:-1].partition(" where ")
    names = {"step": Fraction(step), **FUNCTIONS}
    for definition in re.split(r", (?=[a-z] = )", where) if where else []:
        name, _, value = definition.partition(" = ")
        names[name] = evaluated(value, names)
    return evaluated(body, names)


class Exact(ast.NodeTransformer):
    """Numbers and comparisons as fractions: Python divides integers and bools to rounded floats."""

    def visit_Constant(self, node):
        return ast.Call(ast.Name("Fraction", ast.Load()), [node], [])

    def visit_Compare(self, node):
        return ast.Call(ast.Name("Fraction", ast.Load()), [self.generic_visit(node)], [])


def evaluated(text, names):
    exact = ast.fix_missing_locations(Exact().visit(ast.parse(text, mode="eval")))
    return eval(compile(exact, text, "eval"), {"__builtins__": {}}, names)


MEANINGS = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "mod": lambda x, y: x % y,
    "pow": lambda x, y: x ** int(y),
    "less": lambda x, y: x < y,
    "less_equal": lambda x, y: x <= y,
    "equal": lambda x, y: x == y,
    **FUNCTIONS,
}


def meant(schedule, step):
    """The value of the expression, from its plain data."""
    values = []
    for kind, payload, arguments in schedule.to_dict()["nodes"]:
        if kind in MEANINGS:
            values.append(Fraction(MEANINGS[kind](*(values[i] for i in arguments))))
        else:
            values.append(Fraction({"step": step, "constant": payload}[kind]))
    return values[-1]


INFIX = [*OPERATIONS[:8], lambda x, y: x ** S.floor(y / y + 1)]


@pytest.mark.parametrize("number", [3, -2, 0.5])
@pytest.mark.parametrize("inner", INFIX)
@pytest.mark.parametrize("outer", INFIX)
def test_brackets_are_where_they_are_needed(outer, inner, number):
    for schedule in (outer(inner(t, number), t + 5), outer(t + 5, inner(t, number))):
        for step in (1, 2, 3, 7):
            try:
                want = meant(schedule, step)
            except ZeroDivisionError:
                continue
            assert read(repr(schedule), step) == want, repr(schedule)


THREE = S.less(0, t) + S.less(1, t) + S.less(2, t)


@settings(max_examples=200)
@given(schedule=fractional(), step=st.integers(0, 9))
@example(schedule=S.floor(t / 2) / S.floor(t), step=3)
@example(schedule=S.less(0, t) / THREE, step=3)
def test_the_formula_is_the_schedule(schedule, step):
    try:
        got, want = read(repr(schedule), step), meant(schedule, step)
    except (ZeroDivisionError, OverflowError):  # 1 / 0 and inf are no fractions
        assume(False)
    assert got == want, repr(schedule)


# Plot


@pytest.fixture
def pyplot():
    matplotlib = pytest.importorskip("matplotlib", reason="the extra lrfused[plot]")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


def test_plot_draws_the_values(pyplot):
    schedule = S.warmup_cosine(0.5, 4, 20)
    axes = schedule.plot(25)
    (line,) = axes.lines
    assert line.get_xdata().tolist() == list(range(25))
    assert line.get_ydata().tolist() == schedule.values(range(25)).tolist()
    assert axes.get_xlabel()
    assert axes.get_ylabel()
    axes.figure.canvas.draw()


def test_plot_draws_into_the_axes_it_is_given(pyplot):
    figure, (left, right) = pyplot.subplots(1, 2)
    assert S.constant(1.0).plot(3, ax=right) is right
    assert S.step.plot(5, ax=right) is right
    assert [len(axes.lines) for axes in (left, right)] == [0, 2]
    assert pyplot.get_fignums() == [figure.number]


def test_plot_makes_a_new_figure_each_time(pyplot):
    assert t.plot(3).figure is not t.plot(3).figure
    assert len(pyplot.get_fignums()) == 2


def test_plot_refuses_wrong_lengths():
    for bad in (0, -1):
        with pytest.raises(ValueError, match=r"^steps"):
            t.plot(bad)
    for bad in (1.0, None, True):
        with pytest.raises(TypeError, match=r"^steps"):
            t.plot(bad)


def test_matplotlib_is_imported_only_to_plot():
    code = (
        "import sys; from lrfused import schedules as S; "
        "repr(S.cosine(1.0, 0.0, 9)); S.step.values([1]); "
        "sys.exit('matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""Random settings of torch's schedulers, as partials that still want their optimizer.

The lengths are short, so that runs go well past every end; whole numbers come as floats at times,
and lengths with a fraction are among them, as in ``total_iters=0.05 * steps``.
"""

from functools import partial

from hypothesis import strategies as st
from torch.optim import lr_scheduler as torch_lr

rates = st.floats(1e-5, 10.0)
fractions = st.floats(0.01, 1.0)
lengths = st.integers(1, 30)
odd_lengths = st.one_of(lengths, st.integers(0, 30).map(float), st.floats(0.0, 30.0))


def tenths(x):
    """Fractions as people write them; 0.5 + 1e-16 leaves nothing but rounding to compare."""
    return round(x, 1)


def _make(kind, **settings):
    return st.builds(partial, st.just(kind), **settings)


def a_group_or_all(values, groups):
    """One value for all groups, or a list where their number is known."""
    return st.one_of(
        values, st.lists(values, min_size=groups, max_size=groups) if groups else values
    )


def step_lr():
    return _make(
        torch_lr.StepLR,
        step_size=st.one_of(st.integers(1, 9), st.just(3.0)),
        gamma=st.one_of(st.just(0.0), st.floats(0.1, 1.1)),
    )


def multi_step_lr():
    milestone = st.one_of(st.integers(-2, 40), st.sampled_from([7.0, 7.5]))
    return _make(
        torch_lr.MultiStepLR,
        milestones=st.lists(milestone, max_size=8),  # equal ones count twice
        gamma=st.floats(0.2, 1.1),
    )


def constant_lr():
    return _make(torch_lr.ConstantLR, factor=fractions, total_iters=odd_lengths)


def linear_lr():
    return _make(
        torch_lr.LinearLR,
        start_factor=fractions,
        end_factor=st.floats(0.0, 1.0),
        total_iters=odd_lengths,
    )


def exponential_lr():
    return _make(torch_lr.ExponentialLR, gamma=st.floats(0.5, 1.1))


def polynomial_lr():
    return _make(torch_lr.PolynomialLR, total_iters=odd_lengths, power=st.floats(0.0, 4.0))


def cosine_annealing_lr():
    length = st.one_of(lengths, st.floats(1.0, 30.0).map(tenths))
    return _make(torch_lr.CosineAnnealingLR, T_max=length, eta_min=st.floats(0.0, 2.0))


def cosine_annealing_warm_restarts():
    return _make(
        torch_lr.CosineAnnealingWarmRestarts,
        T_0=st.integers(1, 12),
        T_mult=st.integers(1, 4),
        eta_min=st.floats(0.0, 2.0),
    )


def cyclic_lr(groups=0):
    """Triangles of every mode; a maximum below the base lr is as good as one above it."""
    momentum = st.floats(0.1, 0.95)
    return _make(
        torch_lr.CyclicLR,
        base_lr=a_group_or_all(st.floats(0.0, 10.0), groups),
        max_lr=a_group_or_all(rates, groups),
        step_size_up=st.one_of(st.integers(1, 12), st.floats(0.5, 12.0).map(tenths)),
        step_size_down=st.one_of(st.none(), st.integers(0, 12)),
        mode=st.sampled_from(["triangular", "triangular2", "exp_range"]),
        gamma=st.floats(0.8, 1.0),
        base_momentum=a_group_or_all(momentum, groups),
        max_momentum=a_group_or_all(momentum, groups),
    )


def one_cycle_lr(groups=0):
    """Also with a rise of no step at all, or of all of them."""
    momentum = st.floats(0.1, 0.95)
    return _make(
        torch_lr.OneCycleLR,
        max_lr=a_group_or_all(rates, groups),
        total_steps=st.integers(1, 60),
        pct_start=st.one_of(st.floats(0.0, 1.0), st.sampled_from([0.0, 0.5, 1.0])),
        anneal_strategy=st.sampled_from(["cos", "linear"]),
        base_momentum=a_group_or_all(momentum, groups),
        max_momentum=a_group_or_all(momentum, groups),
        div_factor=st.floats(0.5, 50.0),
        final_div_factor=st.floats(1.0, 1e4),
        three_phase=st.booleans(),
    )


FACTORS = [step_lr, multi_step_lr, constant_lr, linear_lr, exponential_lr, polynomial_lr]
COSINES = [cosine_annealing_lr, cosine_annealing_warm_restarts]
CYCLES = [cyclic_lr, one_cycle_lr]


def any_scheduler():
    """One that has an expression, for any number of groups."""
    return st.one_of([strategy() for strategy in (*FACTORS, *COSINES, *CYCLES)])

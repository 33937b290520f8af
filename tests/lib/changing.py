"""Changes in mid-run: first gradients that come late, and everything that a caller may replace."""

import torch

from lib.runs import advance, random_problem, start
from lrfused import schedules as S
from lrfused.numerics.norm import CHUNK

SHAPES = [(3,), (), (65,), (5, 13), (0,), (CHUNK + 1,), (2, 700), (9,), (3, 3), (2 * CHUNK,), (1,)]


def late(rng, steps, shapes=SHAPES):
    """First gradients that come one or two at a time, in any order."""
    problem = random_problem(rng, shapes, steps)
    begins = rng.numpy.permutation(len(shapes)) * steps / len(shapes)
    for step, gradients in enumerate(problem.gradients):
        for i, begin in enumerate(begins):
            if step < begin:
                gradients[i] = None
    return problem


def bound_from_the_start(made):
    made.opt._engine.forget_table()


def run_late(problem, backend, before_each=lambda made: None, **options):
    made = start(problem.values, backend, **options)
    for gradients in problem.gradients:
        before_each(made)
        advance(made, gradients)
    return made


# Anything that may be replaced


def new_data(made, i):
    p = made.params[i]
    p.data = p.data.clone()


def swapped_data(made, i):
    """With another parameter of its shape, if there is one."""
    p = made.params[i]
    for q in made.params:
        if q.shape == p.shape:
            p.data, q.data = q.data, p.data


def other_layout(made, i):
    p = made.params[i]
    if p.dim() == 2:
        p.data = p.data.t().contiguous().t()


def with_room(made, i):
    """Every second element of twice as much memory: it has to be copied for a step."""
    p = made.params[i]
    p.data = torch.stack((p.data, p.data), -1)[..., 0]


def new_moment(made, i):
    state = made.opt.state.get(made.params[i], {})
    for key in made.opt.rule.state_keys:
        if state.get(key) is not None:
            state[key] = state[key].clone()


def moved_moment(made, i):
    state = made.opt.state.get(made.params[i], {})
    for key in made.opt.rule.state_keys:
        if state.get(key) is not None:
            state[key].data = state[key].data.clone()


def new_dictionary(made, i):
    states = made.opt.state
    if made.params[i] in states:
        states[made.params[i]] = dict(states[made.params[i]])


def no_state(made, i):
    made.opt.state.pop(made.params[i], None)


def more_state(made, i):
    """Of somebody else, beside ours."""
    if made.opt.state.get(made.params[i]):
        made.opt.state[made.params[i]]["own"] = torch.ones(1)


def other_direction(made, i):
    group = made.opt.param_groups[i % len(made.opt.param_groups)]
    group["maximize"] = not group["maximize"]


def lr_of(value):
    def change(made, i):
        made.opt.param_groups[i % len(made.opt.param_groups)]["lr"] = value()

    return change


CHANGES = [
    new_data,
    swapped_data,
    other_layout,
    with_room,
    new_moment,
    moved_moment,
    new_dictionary,
    no_state,
    more_state,
    other_direction,
    lr_of(lambda: torch.tensor(0.03)),
    lr_of(lambda: torch.tensor(0.02, dtype=torch.float64)),
    lr_of(lambda: 0.04),
    lr_of(lambda: S.linear(0.1, 0.0, 20)),
]

"""betas: whatever unpacks to two values and has an order."""

from collections.abc import MutableSequence

import numpy as np
import pytest
import torch
from lib.contract import (
    assert_near,
    assert_same_run,
    give_gradients,
    make_parameters,
    parameters_of,
    run,
    twin,
    warmup,
)
from lib.optimizers import with_betas

from lrfused import schedules


class ConfigList(MutableSequence):
    """As configuration libraries have it: a list that is no list."""

    def __init__(self, values):
        self.values = list(values)

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        return self.values[index]

    def __setitem__(self, index, value):
        self.values[index] = value

    def __delitem__(self, index):
        del self.values[index]

    def insert(self, index, value):
        self.values.insert(index, value)


class Two:
    """No sequence at all, and it can be iterated over more than once."""

    def __init__(self, values):
        self.both = values

    def __iter__(self):
        return iter(self.both)


KINDS = {
    "tuple": tuple,
    "list": list,
    "list of a configuration": ConfigList,
    "array": np.array,
    "float32 array": lambda values: np.array(values, dtype=np.float32),
    "tensor": lambda values: torch.tensor(values, dtype=torch.float64),
    "NumPy scalars": lambda values: tuple(map(np.float64, values)),
    "arrays of no dimension": lambda values: tuple(map(np.array, values)),
    "tensors": lambda values: [torch.tensor(value, dtype=torch.float64) for value in values],
    "an iterable": Two,
}
every_kind = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
MUTABLE = ("list", "list of a configuration", "array", "tensor", "an iterable")
VALUES = [0.75, 0.9375]  # which float32 has, too


@with_betas
@every_kind
def test_every_pair_is_taken(rng, kind, backend, make):
    """Tuple, list, the list of a configuration library, array, tensor, anything that unpacks to
    two: in the constructor and in a group the optimizer of a tuple, bit-equal."""
    params = make_parameters(rng)
    opts = [
        kind.ours(params, betas=tuple(VALUES), backend=backend),
        kind.ours(twin(params), betas=make(VALUES), backend=backend),
        kind.ours([{"params": twin(params), "betas": make(VALUES)}], backend=backend),
    ]
    run(rng, 3, *opts)
    for other in opts[1:]:
        assert_same_run(other, opts[0])
        assert other.param_groups[0]["betas"] == tuple(VALUES)


@with_betas
@every_kind
@pytest.mark.parametrize("at", [0, 3])
def test_every_pair_may_be_written_to_a_group(rng, kind, backend, make, at):
    """group["betas"] = such a pair: used from the next step on, saved, loaded, shown."""
    params = make_parameters(rng)
    opt, wanted = (kind.ours(p, backend=backend) for p in (params, twin(params)))
    run(rng, at, opt, wanted)
    opt.param_groups[0]["betas"], wanted.param_groups[0]["betas"] = make(VALUES), tuple(VALUES)
    run(rng, 3, opt, wanted)
    assert_same_run(opt, wanted)
    opt.load_state_dict(opt.state_dict())
    assert tuple(map(float, opt.param_groups[0]["betas"])) == tuple(VALUES)
    run(rng, 2, opt, wanted)
    assert_same_run(opt, wanted)


@with_betas
@pytest.mark.parametrize("make", [KINDS[name] for name in MUTABLE], ids=MUTABLE)
@pytest.mark.parametrize("at", [0, 3])
def test_a_pair_may_be_changed_in_place(rng, kind, backend, make, at):
    """group["betas"][0] = 0.5 in mid-run, whatever the pair is: seen at the next step, as by
    torch."""
    params = make_parameters(rng)
    ours = kind.ours(params, lr=0.01, backend=backend)
    theirs = kind.theirs(twin(params), lr=0.01)
    run(rng, at, ours, theirs)
    pairs = make(list(VALUES)), list(VALUES)
    for opt, pair in zip((ours, theirs), pairs, strict=True):
        opt.param_groups[0]["betas"] = pair
    run(rng, 2, ours, theirs)
    for pair in pairs:
        getattr(pair, "both", pair)[0] = 0.5
    run(rng, 3, ours, theirs)
    assert_near(ours, theirs)


@with_betas
@pytest.mark.parametrize("make", [list, ConfigList, lambda values: np.array(values, dtype=object)])
def test_schedules_may_stand_in_any_pair(rng, kind, backend, make):
    """A Schedule in a list or an array of objects, new and written later."""
    beta = schedules.linear(0.5, 0.9, 9)
    params = make_parameters(rng)
    wanted = kind.ours(params, betas=(beta, 0.99), backend=backend)
    first = kind.ours(twin(params), betas=make([beta, 0.99]), backend=backend)
    second = kind.ours(twin(params), backend=backend)
    second.param_groups[0]["betas"] = make([beta, 0.99])
    run(rng, 4, wanted, first, second)
    for opt in (first, second):
        assert_same_run(opt, wanted)
        assert opt.param_groups[0]["betas"] == (beta(4), 0.99)


NO_PAIRS = [
    [0.9],
    [0.9, 0.99, 0.999],
    (),
    {0.8, 0.9},
    {0.8: 1, 0.9: 2},
    "ab",
    "0.9",
    None,
    0.9,
    np.array([0.9]),
    np.array(0.9),
    torch.tensor([0.8, 0.9, 0.95]),
    torch.tensor(0.9),
    torch.ones(2, 2) / 2,
    {0.8: 1, 0.9: 2}.keys(),
    [0.9, None],
    [0.9, "0.99"],
    [[0.9], [0.99]],
]


@with_betas
@pytest.mark.parametrize("value", NO_PAIRS, ids=lambda value: repr(value).replace(" ", ""))
def test_what_is_no_pair_is_refused(rng, kind, value):
    """One value, three, a set, a mapping, a string, None: an error that names betas, in the
    constructor, in a group, and written to a group, where the next step has not begun."""
    for params in (make_parameters(rng), [{"params": make_parameters(rng), "betas": value}]):
        own = {} if isinstance(params[0], dict) else {"betas": value}
        with pytest.raises((TypeError, ValueError), match=r"^betas(\[[01]\])?: "):
            kind.ours(params, **own)
    opt = kind.ours(make_parameters(rng), lr=warmup())
    for _ in range(2):
        kept, opt.param_groups[0]["betas"] = opt.param_groups[0]["betas"], value
        before = [p.detach().clone() for p in parameters_of(opt)]
        give_gradients(rng, opt)
        with pytest.raises((TypeError, ValueError), match=r"param_groups\[0\]: betas"):
            opt.step()
        assert all(torch.equal(p, q) for p, q in zip(parameters_of(opt), before, strict=True))
        opt.param_groups[0]["betas"] = kept
        run(rng, 1, opt)

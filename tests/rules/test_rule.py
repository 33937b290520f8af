"""Rules: their scalars as programs, their names in C++, their conditions."""

import copy
import pickle

import executed
import numpy as np
import pytest
import torch
from lib import optimizers, rules_for_steps

import lrfused
from lrfused import native
from lrfused.backends.description import description
from lrfused.numerics.elementary import power_integer
from lrfused.rules import ADAMW, RULES, SGD, sgd
from lrfused.settings.options import DecayMode, GroupOptions
from lrfused.settings.slots import LARGEST_FLOAT32, OPTIONAL, Range, Slot, is_usable

MANY = 20_000


def options_of(rule, mode, **of_rule):
    usual = {name: choices[0] for name, choices in rule.arguments.items()}
    usual |= dict.fromkeys(rule.switches, False)
    usual |= {slot.name.lower(): True for slot in rule.presence}
    return GroupOptions(decay_mode=mode, peak_lr=0.3, of_rule={**usual, **of_rule})


def values_of(rule, options, rows, counts, carried):
    """The scalars and carried numbers that the program of a rule gives, by name."""
    inputs = (*(rows.get(slot, 0.0) for slot in Slot), *carried)
    found = rule.program(options).evaluate_all(counts, inputs)
    names = (*rule.scalars, *(c.name for c in rule.carried))
    return dict(zip(names, found, strict=True))


def decay_of(mode, lr, weight_decay):
    if mode == DecayMode.LR:
        return 1.0 - lr * weight_decay
    return 1.0 - weight_decay * (1.0 if mode == DecayMode.INDEPENDENT else lr / 0.3)


@pytest.mark.parametrize("correction", ["power", "product"])
@pytest.mark.parametrize("mode", ADAMW.decay_modes)
def test_scalars_of_adamw_are_those_of_direct_arithmetic(rng, mode, correction):
    """Bit for bit, for counts up to 2**40."""
    uniform = rng.numpy.random
    rows = {
        Slot.LR: uniform(MANY) * 10.0 ** rng.numpy.integers(-6, 1, MANY),
        Slot.WEIGHT_DECAY: uniform(MANY),
        Slot.BETA1: uniform(MANY),
        Slot.BETA2: 1.0 - uniform(MANY) * 0.1,
        Slot.EPS: uniform(MANY) * 1e-7,
    }
    counts = np.floor(2.0 ** (40 * uniform(MANY)))
    carried = (uniform(MANY), uniform(MANY))
    options = options_of(ADAMW, mode, bias_correction=correction)
    with np.errstate(all="ignore"):
        found = values_of(ADAMW, options, rows, counts, carried)
        beta1, beta2 = rows[Slot.BETA1], rows[Slot.BETA2]
        if correction == "product":
            first, second = carried[0] * beta1, carried[1] * beta2
        else:
            first = power_integer(beta1, counts.astype(np.int64))
            second = power_integer(beta2, counts.astype(np.int64))
        expected = {
            "decay": decay_of(mode, rows[Slot.LR], rows[Slot.WEIGHT_DECAY]),
            "beta1": beta1,
            "one_minus_beta1": 1.0 - beta1,
            "beta2": beta2,
            "one_minus_beta2": 1.0 - beta2,
            "eps": rows[Slot.EPS],
            "step_size": rows[Slot.LR] / (1.0 - first),
            "inv_sqrt_bias_correction2": 1.0 / np.sqrt(1.0 - second),
            "beta1_product": first if correction == "product" else carried[0],
            "beta2_product": second if correction == "product" else carried[1],
        }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("nesterov", [False, True])
def test_scalars_of_sgd_say_what_enters_the_buffer(nesterov):
    """(momentum, written before) -> what enters the buffer, written after."""
    options = options_of(SGD, DecayMode.L2, nesterov=nesterov)
    momentum = np.array([0.0, 0.0, 0.9, 0.9])
    rows = {Slot.MOMENTUM: momentum, Slot.DAMPENING: 0.25, Slot.WEIGHT_DECAY: 0.5, Slot.LR: 0.1}
    found = values_of(SGD, options, rows, np.ones(4), (np.array([0.0, 1.0, 0.0, 1.0]),))
    with_momentum = sgd.BUFFER_AND_GRADIENT if nesterov else sgd.BUFFER
    assert found["mode"].tolist() == [sgd.GRADIENT] * 2 + [with_momentum] * 2
    assert found["buffer_decay"].tolist()[2:] == [0.0, 0.9]
    assert found["buffer_gain"].tolist()[2:] == [1.0, 0.75]
    assert found["buffer_written"].tolist() == [0.0, 1.0, 1.0, 1.0]
    assert found["l2"].tolist() == [0.5] * 4 and found["decay"].tolist() == [1.0] * 4
    if not nesterov:
        assert found["from_buffer"].tolist() == [0.0, 0.0, 1.0, 1.0]


def test_the_suites_run_over_every_rule():
    """A rule without an entry in the lists of the tests would go untested."""
    names = {rule.name for rule in RULES}
    assert names == {kind.cls.rule.name for kind in optimizers.KINDS}
    assert names == rules_for_steps.RULES.keys() == executed.TITLES.keys()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_option_gives_every_scalar(rule):
    """Whatever the options are, expressions name the scalars and carried numbers, no more."""
    for mode in rule.decay_modes:
        for switch in (False, True):
            switched = dict.fromkeys((*rule.switches, *(s.name.lower() for s in rule.presence)))
            options = options_of(rule, mode, **dict.fromkeys(switched, switch))
            program = rule.program(options)
            assert len(program.results) == len(rule.scalars) + len(rule.carried)
            used = rule.operands_used(options)
            assert [o.is_used(options) for o in rule.operands] == [
                i < used for i in range(len(rule.operands))
            ], "the operands that a group uses are the first ones"


def test_a_program_is_made_once():
    first = options_of(ADAMW, DecayMode.LR)
    assert ADAMW.program(first) is ADAMW.program(copy.deepcopy(first))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_copies_of_a_rule_are_the_rule(rule):
    assert copy.deepcopy(rule) is rule and pickle.loads(pickle.dumps(rule)) is rule


# C++


@pytest.mark.skipif(native.cpu is None, reason="no C++ backend")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rule": "adam"}, "rule: no adam"),
        ({"scalars": ["decay"]}, "rule: no adamw with these scalars"),
        ({"slots": 99}, "slots, carried: too many"),
    ],
    ids=["name", "scalars", "slots"],
)
def test_a_module_of_other_rules_is_refused(change, message):
    """A native Step is made only where both sides mean the same by a rule."""
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    opt = lrfused.AdamW([weight], backend="cpu")
    opt.step()
    tensors, groups, options, programs, state = description(opt._engine.table.work)
    with pytest.raises(ValueError, match=message):
        native.cpu.Step(tensors, groups, {**options, **change}, programs, state)


# Ranges


def test_ranges():
    values = [-1.0, -0.0, 0.0, 0.5, 1.0, LARGEST_FLOAT32, 1e39, float("inf"), float("nan")]
    usable = {kind: [v for v in values if is_usable(kind, v)] for kind in Range}
    assert usable[Range.FINITE] == values[:6]
    assert usable[Range.BELOW_ONE] == values[1:4]
    assert usable[Range.LIMIT] == values[1:8]
    assert usable[Range.POSITIVE] == values[3:6]
    assert usable[Range.ZERO] == values[1:3]
    assert OPTIONAL == (Slot.MAX_GRAD_NORM, Slot.CLIP_VALUE, Slot.AGC, Slot.EMA_DECAY)

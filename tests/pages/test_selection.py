"""What `make test` leaves to the slow tests is chosen by name; a renamed one would be forgotten."""

import os

import pytest
from lib.collecting import Collected, collected
from lib.rules_for_steps import RULES
from lib.selection import (
    IN_PROCESSES,
    INTERPRETED_LATER,
    KEPT,
    KEPT_OF_PTX,
    NOT_KEPT,
    OF_EACH_RULE,
    OPTIONS_OF_PTX,
    OTHER_RULES,
    OVER_KERNELS,
    OVER_TRITON,
    TRANSLATED,
    TRIALS,
)


@pytest.mark.usefixtures("listed_once")
@pytest.mark.skipif("LRFUSED_TEST_BACKENDS" in os.environ, reason="fewer tests are collected")
def test_every_name_that_chooses_chooses_something():
    tests = collected("tests")
    interpreted = [test for test in tests if "triton" in test.parts and place(test) != "gpu"]
    later = [test for test in interpreted if place(test) in INTERPRETED_LATER]
    kept = [test for test in later if chosen_by(test) & {*KEPT}]
    not_kept = [test for test in kept if test.function in NOT_KEPT]
    others = [test for test in tests if test.backend not in ("cpu", None)]
    assert {place(test) for test in later} == {*INTERPRETED_LATER}
    assert {*KEPT} <= set().union(*map(chosen_by, kept))
    assert {test.function for test in not_kept} == {*NOT_KEPT}
    assert {*TRIALS} <= {test.function for test in interpreted}
    assert {*IN_PROCESSES} <= {test.function for test in others}
    assert {*KEPT_OF_PTX, *TRANSLATED} <= set().union(*map(chosen_by, tests))
    assert {*OF_EACH_RULE} <= {test.function for test in tests}
    of_ptx = {test.parts[-1] for test in tests if test.parts[:2] == ("triton_ptx", "adamw")}
    assert {*OPTIONS_OF_PTX} <= of_ptx
    assert {*OTHER_RULES} == RULES.keys() - {"adamw"}
    for rule in OTHER_RULES:
        of_rule = [
            test for test in tests if {"cuda", rule} <= {*test.parts} and place(test) != "gpu"
        ]
        assert {*OVER_KERNELS} <= {test.function for test in of_rule}
        assert any(test.parts == ("triton", rule, OVER_TRITON) for test in interpreted)


def place(test: Collected) -> str:
    return test.file.split("/")[1]


def chosen_by(test: Collected) -> set[str]:
    return {test.file.rpartition("/")[2], test.function}

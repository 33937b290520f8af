"""The committed results: every study has decided, and its check notices when arms are swapped."""

import pytest
from lib.benchmarks import BENCHMARKS  # noqa: F401  (puts the studies on the path)

# isort: split
from studies.common import page, records
from studies.common.records import PUBLISHED
from studies.common.statistics import CONFIRMED, CONTROL, INSTEAD, UNDECIDED, verdict
from studies.common.study import NAMES, Study

FEWEST_SEEDS = 5
MINUTES = 45


@pytest.fixture(scope="module")
def committed() -> dict[str, records.Record]:
    return records.read(PUBLISHED)


def test_every_study_has_a_result(committed):
    assert list(committed) == list(NAMES)


def assert_same(told: dict, found: dict) -> None:
    """Another processor may round NumPy's logarithms differently."""
    assert told.keys() == found.keys()
    for key, value in told.items():
        assert found[key] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-9))


@pytest.mark.parametrize("name", NAMES)
def test_its_verdict_follows_from_its_numbers(committed, name):
    record, study = committed[name], Study(name)
    found = study.check(record["result"])
    assert record["verdict"] == verdict(found) != UNDECIDED
    for told, statement in zip(record["statements"], found, strict=True):
        assert_same(told, statement.plain())
    assert record["seeds"] == study.seeds()
    assert len(record["seeds"]) >= FEWEST_SEEDS
    assert all(len(statement.values) == len(record["seeds"]) for statement in found)
    assert not record["commit"]["dirty"]


@pytest.mark.parametrize("name", NAMES)
def test_its_check_fails_when_the_arms_are_swapped(committed, name):
    study = Study(name)
    result = committed[name]["result"]
    swapped = study.swapped(result)
    assert swapped["arms"] != result["arms"]
    before, after = study.check(result), study.check(swapped)
    assert verdict(after) != CONFIRMED
    claims = [(a.holds, b.holds) for a, b in zip(before, after, strict=True) if a.kind != CONTROL]
    assert (True, False) in claims, "something that held does not hold any more"
    assert study.swapped(swapped) == result


@pytest.mark.parametrize("name", NAMES)
def test_it_has_a_control_and_says_what_holds_instead(committed, name):
    study = Study(name)
    kinds = {statement.kind for statement in study.check(committed[name]["result"])}
    assert CONTROL in kinds
    is_confirmed = committed[name]["verdict"] == CONFIRMED
    assert is_confirmed != ("What holds:" in study.text)
    assert is_confirmed != (INSTEAD in kinds)


def test_all_of_them_take_the_time_that_they_may(committed):
    assert sum(record["cpu_seconds"] for record in committed.values()) < 60 * MINUTES


def test_the_page_and_its_pictures_are_those_of_the_results():
    assert page.check(PUBLISHED) == []


def test_a_changed_result_or_page_is_seen(tmp_path, committed):
    places = records.below(tmp_path)
    names = NAMES[:2]
    for name in names:
        records.result_files.write(committed[name], records.path(places, name))
    page.write(places)
    assert page.check(places) == []
    changed = {**committed[names[0]], "verdict": "refuted"}
    records.result_files.write(changed, records.path(places, names[0]))
    assert page.check(places) == ["studies.md is not that of the result files"]
    arms = committed[names[0]]["result"]["arms"]
    result = {**committed[names[0]]["result"], "arms": dict(reversed(arms.items())), "more": 1}
    records.result_files.write({**changed, "result": result}, records.path(places, names[0]))
    assert len(page.check(places)) == 3

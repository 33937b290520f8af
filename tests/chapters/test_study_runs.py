"""Studies run from end to end: the quick ones here, and what the command makes of them."""

import json
import math
from dataclasses import replace

import pytest
import torch
from lib.benchmarks import BENCHMARKS  # noqa: F401  (puts the studies on the path)

# isort: split
from studies import __main__ as command
from studies.common import page, records
from studies.common.records import Unfinished
from studies.common.running import Done, Task, run_one
from studies.common.statistics import CONFIRMED, verdict
from studies.common.study import Study

SEEDS = 5
FAST = ("clipping", "momentum_roots", "warmup_by_optimizer")
FASTEST = "momentum_roots"


@pytest.mark.parametrize("name", FAST)
def test_a_fast_study_comes_to_its_verdict_and_fails_with_its_arms_swapped(name):
    study = Study(name)
    result = study.module.run(study.seeds(SEEDS), torch.device("cpu"))
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert verdict(study.check(result)) == CONFIRMED
    assert verdict(study.check(study.swapped(result))) != CONFIRMED


def test_a_study_repeats_its_numbers():
    study = Study(FASTEST)
    first, second = (study.module.run([3, 4], torch.device("cpu")) for _ in range(2))
    assert first == second


def test_the_command_writes_what_there_is_and_fails_where_a_study_raised(
    tmp_path, monkeypatch, capsys
):
    """With no seed at all a study has nothing to check."""
    monkeypatch.setattr(Study, "seeds", lambda self, most: [0, 1] if self.name == FASTEST else [])
    arguments = ["--quick", "--only", "clipping", FASTEST, "--out", str(tmp_path)]
    assert command.main(arguments) == 1
    said, places = capsys.readouterr(), records.below(tmp_path)
    assert "FAILED: clipping: " in said.err
    assert f"{FASTEST}  " in said.out, "the verdicts are printed"
    (record,) = records.read(places).values()
    here = Study(FASTEST).module.run([0, 1], torch.device("cpu"))
    assert (record["finished"], record["seeds"], record["result"]) == (True, [0, 1], here)
    assert record["cpu_seconds"] > 0.0
    assert Study(FASTEST).subject in places.page.read_text(encoding="utf-8")
    drawn = sorted(file.name for file in places.pictures.iterdir())
    assert drawn == ["all.svg", f"{FASTEST}.svg"]
    assert places.unfinished.exists(), "the same command runs the other one again"


def test_a_run_that_finished_starts_from_the_beginning_next_time(tmp_path, monkeypatch):
    stored = records.read(records.PUBLISHED)[FASTEST]["result"]
    seeds: list[tuple[int, ...]] = []

    def run_all(tasks, jobs):
        for task in tasks:
            seeds.append(task.seeds)
            yield task, Done(task, stored, Study(FASTEST).check(stored), 1.0)

    monkeypatch.setattr(command, "run_all", run_all)
    for _ in range(2):
        assert command.main(["--quick", "--only", FASTEST, "--out", str(tmp_path)]) == 0
        assert not records.below(tmp_path).unfinished.exists()
    assert seeds == [tuple(range(command.QUICK_SEEDS))] * 2


def test_a_changed_check_is_applied_to_stored_numbers_without_a_run(tmp_path, monkeypatch):
    places = records.below(tmp_path)
    record = records.read(records.PUBLISHED)[FASTEST]
    outdated = {**record, "verdict": "refuted", "statements": record["statements"][:1]}
    records.result_files.write(outdated, records.path(places, FASTEST))
    monkeypatch.setattr(command, "run_all", lambda tasks, jobs: pytest.fail("nothing is run"))
    assert command.main(["--page", "--out", str(tmp_path)]) == 0
    (again,) = records.read(places).values()
    assert again["verdict"] == record["verdict"]
    texts = [[s["text"] for s in each["statements"]] for each in (again, record)]
    assert texts[0] == texts[1]
    assert page.check(places) == []


def test_a_run_that_was_cut_off_goes_on_where_it_stopped(tmp_path, monkeypatch):
    names = [FASTEST, "clipping"]
    studies = [Study(name) for name in names]
    asked: list[str] = []

    def cut_off(tasks, jobs):
        asked.extend(task.name for task in tasks)
        result = json.loads(records.path(records.PUBLISHED, names[0]).read_text())["result"]
        yield tasks[0], Done(tasks[0], result, studies[0].check(result), 1.0)
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "run_all", cut_off)
    arguments = ["--quick", "--only", *names, "--out", str(tmp_path)]
    assert command.main(arguments) == 130
    assert list(records.read(records.below(tmp_path))) == [names[0]]
    assert command.main(arguments) == 130
    assert asked == [*names, names[1]]


def test_a_changed_study_or_another_number_of_seeds_is_run_again(tmp_path, monkeypatch):
    study, places = Study(FASTEST), records.below(tmp_path)
    task = Task(FASTEST, (0, 1), "cpu")
    Unfinished(places).note(study, task)
    assert Unfinished(places).has(study, task)
    assert not Unfinished(places).has(study, replace(task, seeds=(0, 1, 2)))
    assert not Unfinished(places).has(study, replace(task, device="cuda"))
    monkeypatch.setattr(Study, "fingerprint", lambda self: "changed")
    assert not Unfinished(places).has(study, task)


def test_a_run_of_one_study_keeps_what_a_cut_off_run_has_done(tmp_path):
    places = records.below(tmp_path)
    for name in (FASTEST, "clipping"):
        Unfinished(places).note(Study(name), Task(name, (0, 1), "cpu"))
    Unfinished(places).end([FASTEST])
    assert not Unfinished(places).has(Study(FASTEST), Task(FASTEST, (0, 1), "cpu"))
    assert Unfinished(places).has(Study("clipping"), Task("clipping", (0, 1), "cpu"))
    Unfinished(places).end(["clipping"])
    assert not places.unfinished.exists()


def test_numbers_that_are_not_finite_are_an_error(monkeypatch):
    module = Study(FASTEST).module
    monkeypatch.setattr(module, "run", lambda seeds, device: {"arms": {}, "curve": [math.nan]})
    with pytest.raises(ValueError, match="not JSON compliant"):
        run_one(Task(FASTEST, (0, 1), "cpu"))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--only", "unknown"], "invalid choice: 'unknown'"),
        (["--jobs", "0"], "must be a whole number >= 1, got '0'"),
        (["--jobs", "two"], "must be a whole number >= 1, got 'two'"),
        (["--device", "nowhere"], "'nowhere' can not be used"),
    ],
)
def test_bad_arguments_are_refused_before_anything_runs(arguments, problem, capsys):
    with pytest.raises(SystemExit):
        command.main(arguments)
    assert problem in capsys.readouterr().err

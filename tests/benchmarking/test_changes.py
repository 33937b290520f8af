"""benchmarks/changes.py: its rows on tiny work, and a run of one row."""

import json
import sys
from functools import partial
from types import SimpleNamespace

import pytest
from lib.benchmarks import FEW, tiny  # noqa: F401

# isort: split
import change_rows
import change_table
import change_worker
import changed_steps
import changes
import many_groups
import records
import result_files
import step_ends
import workers
from change_rows import ROWS
from change_sides import OURS, TORCH
from changed_steps import CHANGED, USUAL, ChangedSteps, Edited, FirstGradients
from many_groups import PARTS, ManyGroups
from verify import WrongResult

EDITS = {name: partial(Edited, edit) for name, (_, edit) in change_rows.EDITS.items()}
SCENES = {"first gradients": FirstGradients, **EDITS}
TENSORS, STEPS = 210, 2

# What is timed


@pytest.mark.parametrize("side", [OURS, TORCH])
@pytest.mark.parametrize("scene", SCENES)
def test_changed_steps_are_those_of_the_reference(scene, side):
    subject = ChangedSteps(SCENES[scene], side, TENSORS, STEPS)
    times = subject.turn()
    assert times.keys() == {USUAL, CHANGED} and min(times.values()) > 0
    assert 0.0 < subject.check() < 1e-5


@pytest.mark.parametrize("scene", SCENES)
def test_an_optimizer_that_overlooks_a_change_is_found_out(scene, monkeypatch):
    subject = ChangedSteps(SCENES[scene], OURS, TENSORS, STEPS)
    with monkeypatch.context() as patch:
        patch.setattr(subject._scene, "prepare", lambda changed: None)
        subject.turn()
    with pytest.raises(WrongResult, match="is off by"):
        subject.check()


@pytest.mark.parametrize("tensors", [148, 1000, 16000])
def test_changes_go_over_all_tensors(tensors):
    scene = SimpleNamespace(params=range(tensors))
    assert {changed_steps.place_of(scene, i) for i in range(tensors)} == set(range(tensors))


def test_there_are_as_many_first_gradients_as_tensors_without_one():
    subject = ChangedSteps(FirstGradients, TORCH, TENSORS, 5)
    subject.turn()
    with pytest.raises(ValueError, match="rounds: must be fewer, all 210 tensors"):
        subject.turn()


@pytest.mark.parametrize("side", [OURS, TORCH])
@pytest.mark.parametrize("scheduled", [False, True])
def test_many_groups_go_on_as_the_reference_does(scheduled, side):
    subject = ManyGroups(scheduled, side, 3)
    for _ in range(2):
        times = subject.turn()
    assert tuple(times) == PARTS and min(times.values()) > 0
    assert 0.0 < subject.check() < 1e-5


def test_a_schedule_that_is_not_loaded_is_found_out(monkeypatch):
    monkeypatch.setattr(many_groups.Training, "load", lambda self, saved: self.step())
    subject = ManyGroups(True, OURS, 3)
    subject.turn()
    with pytest.raises(WrongResult):
        subject.check()


def test_ends_of_steps_with_and_without_written_gradients(monkeypatch):
    subject = step_ends.StepEnds(OURS, FEW.name)
    assert subject.turn().keys() == {USUAL, CHANGED} and 0.0 < subject.check() < 1e-5
    assert step_ends.StepEnds(TORCH, FEW.name).turn().keys() == {USUAL}
    unwritten = partial(step_ends.fused_whole)
    monkeypatch.setattr(step_ends, "fused_whole", lambda *given, write_grads: unwritten(*given))
    with pytest.raises(WrongResult, match="a written gradient is off by"):
        step_ends.StepEnds(OURS, FEW.name)


# The run


class HereWorker:
    """A worker in this process, where starting one takes seconds."""

    def __init__(self, script, arguments):
        self._answers = change_worker.Answers(arguments[1])

    def ask(self, question):
        return json.loads(json.dumps(self._answers.to(question)))

    def end(self):
        pass


@pytest.mark.parametrize(
    "worker", [HereWorker, pytest.param(workers.Worker, marks=pytest.mark.slow)]
)
def test_a_run_of_a_row_beside_another_checkout(worker, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(changes, "Worker", worker)
    arguments = ["--rows", "lr-number-148", "--rounds", "2", "--seconds", "0"]
    assert changes.main([*arguments, "--against", str(result_files.ROOT)]) == 0
    record = json.loads((tmp_path / "changes.json").read_text())
    assert record["finished"] is True and record["other"][:40] == record["commit"]["hash"]
    found = records.by_case(record)
    assert list(found) == [("lr-number-148", "float32", part) for part in (USUAL, CHANGED)]
    for case in found.values():
        assert list(case) == [OURS, TORCH, change_table.BEFORE]
        for measured in case.values():
            assert measured["status"] == "ok" and 0.0 < measured["deviation"] < 1e-4
            assert len(measured["seconds"]["rounds"]) == 2
    assert "148 tensors, a new number as lr" in capsys.readouterr().out


class FakeWorker:
    """Whose turns take one second, and the second of which fails on torch's side."""

    def __init__(self, script, arguments):
        self.side, self.turns = arguments[1], 0

    def ask(self, question):
        what, _ = question.split()
        self.turns += what == "turn"
        if self.side == TORCH and self.turns == 2:
            return {"failed": "ValueError: no"}
        return {"answer": {USUAL: 1.0, CHANGED: 1.0} if what == "turn" else 0.5}

    def end(self):
        pass


def test_an_answer_says_what_is_wrong_or_failed(monkeypatch):
    answers = change_worker.Answers(OURS)
    assert answers.to("turn late-500") == {"failed": "AssertionError: "}
    assert answers.to("begin lr-number-148") == {"answer": None}
    assert answers.to("turn lr-number-148")["answer"].keys() == {USUAL, CHANGED}
    monkeypatch.setattr(ChangedSteps, "check", lambda self: changed_by_nothing())
    assert answers.to("check lr-number-148") == {"wrong": "p is off"}


def changed_by_nothing():
    raise WrongResult("p is off")


def test_a_worker_is_asked_line_by_line(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text("import sys\nfor line in sys.stdin:\n    print(len(line) + len(sys.argv))\n")
    worker = workers.Worker(script, ("a", "b"))
    assert [worker.ask("1"), worker.ask("123")] == [5, 7]
    worker.end()
    script.write_text("raise SystemExit(3)")
    with pytest.raises(RuntimeError, match="a worker ended with status 3"):
        workers.Worker(script, ()).ask("1")


def test_the_package_is_that_of_the_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", list(sys.path))
    workers.use_package(result_files.ROOT)
    with pytest.raises(RuntimeError, match=f"lrfused was not imported from {tmp_path}"):
        workers.use_package(tmp_path)


def test_a_side_that_fails_fails_the_run_and_stops_no_other(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(changes, "Worker", FakeWorker)
    assert changes.main(["--rows", "late-500", "--seconds", "0"]) == 1
    assert "fused, late-500 float32 usual: failed: ValueError: no" in capsys.readouterr().err
    record = json.loads((tmp_path / "changes.json").read_text())
    case = records.by_case(record)[("late-500", "float32", USUAL)]
    assert len(case[OURS]["seconds"]["rounds"]) == changes.LEAST  # no second was left for more
    assert "seconds" not in case[TORCH] and record["other"] is None


def test_a_quick_run_is_a_part_of_a_whole_one():
    quick, whole = changes.parse(["--quick"]), changes.parse([])
    assert set(quick.rows) < set(whole.rows) == set(ROWS)
    assert quick.out != whole.out and quick.rounds < whole.rounds
    assert changes.parse(["--quick", "--rounds", "9"]).rounds == 9


def test_bad_rows_name_the_rule(capsys):
    with pytest.raises(SystemExit):
        changes.parse(["--rows", "late-3"])
    assert "must be of tiny148" in capsys.readouterr().err

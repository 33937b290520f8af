"""What the benchmark harness measures and writes, on tiny work."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from lib.benchmarks import CPU, FEW, FRESH, case_of, tiny, with_settings  # noqa: F401

# isort: split
import bench
import host_time
import memory
import pipelines
import result_files
import runner
import timing
from data import Data, Settings
from providers import PROVIDERS
from workloads import FORMS

import lrfused

# What is measured


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("fused", (28, 40, 48)), ("foreach", (80, 92, 100)), ("lrfused", (28, 32, 32))],
)
def test_bytes_of_a_parameter(name, wanted):
    provider = PROVIDERS[name]
    found = [provider.bytes_per_parameter(form, torch.float32) for form in FORMS.values()]
    halves = [provider.bytes_per_parameter(form, torch.bfloat16) for form in FORMS.values()]
    assert tuple(found) == wanted and [2 * h for h in halves] == found


def test_all_take_turns_in_changing_orders(rng):
    made = Data(case_of(), Settings())
    steps: list[str] = []
    contestants = {
        name: timing.Contestant(lambda name=name: steps.append(name), made.parameters(), made)
        for name in "abcd"
    }
    rounds, seed = 9, int(rng.numpy.integers(2**31))
    turns = list(timing.compete(contestants, rounds, CPU, lambda: steps.append("round"), seed))
    orders = {tuple(turns[i : i + 4]) for i in range(0, len(turns), 4)}
    assert len(turns) == 4 * rounds and all(set(order) == set("abcd") for order in orders)
    assert len(orders) > 1
    assert steps.count("round") == rounds
    for name, contestant in contestants.items():
        assert len(contestant.turns) == rounds
        assert steps.count(name) == 1 + rounds * (FEW.untimed_steps + FEW.timed_steps)


@pytest.mark.parametrize("workload", [FEW, FRESH], ids=["kept", "fresh"])
def test_every_step_finds_the_gradients_of_a_backward_pass(workload):
    made = Data(case_of(workload=workload), Settings())
    params = made.parameters()
    wanted = [pool[:5] for pool in made.gradients] * 2

    def step() -> None:
        seen.append(params[0].grad.view(-1)[:5].clone())
        for param in params:
            param.grad.mul_(0.5)  # as a clip does

    seen: list[torch.Tensor] = []
    contestant = timing.Contestant(step, params, made)
    for _ in wanted:
        contestant.take_step(CPU)
    assert all(torch.equal(a, b) for a, b in zip(seen, wanted, strict=True))


def test_median_and_deciles():
    values = [float(i) for i in (7, 2, 11, 1, 4, 3, 6, 5, 9, 8, 10)]
    assert timing.Spread.of(values) == timing.Spread(6.0, 2.0, 10.0)
    assert timing.Spread.of([7.0]) == timing.Spread(7.0, 7.0, 7.0)
    assert timing.ratio([2.0, 6.0, 4.0], [1.0, 2.0, 1.0]).median == 3.0
    with pytest.raises(ValueError, match="values"):
        timing.Spread.of([])


@pytest.mark.skipif(memory.peak_extra_bytes(lambda: None) is None, reason="needs Linux and glibc")
def test_peak_memory_sees_temporaries_and_nothing_else():
    # The system counts pages in batches by processor and may give huge ones: whole tensors are told
    # apart, not bytes.
    elements, tensors, slack = 2_000_003, 8, 4 * 2_000_003 // 2
    kept = torch.ones(elements)

    def hold_all() -> None:
        [torch.ones(elements) for _ in range(tensors)]

    for _ in range(3):  # the allocator may keep the memory of earlier calls
        taken = memory.peak_extra_bytes(hold_all)
        assert abs(taken - 4 * elements * tensors) < slack
    assert memory.peak_extra_bytes(lambda: kept.mul_(2.0)) < slack


def test_time_in_the_kernels():
    made = Data(case_of(), Settings())
    params = made.parameters()
    opt = pipelines.fused_whole(params, FORMS["clip"], Settings()).optimizer
    contestant = timing.Contestant(opt.step, params, made)
    assert host_time.kernel_share(opt, lambda: contestant.take_step(CPU), 3) is None  # no table yet
    contestant.take_step(CPU)
    found = host_time.kernel_share(opt, lambda: contestant.take_step(CPU), 3)
    if lrfused.info()["cpu"].available:
        assert 0.0 < found["kernels"] < found["step"]
    assert not isinstance(opt._engine.table.run.step, host_time.Stopwatch)
    assert opt.metrics()["steps"] == 4


# The run


def test_a_run_writes_what_it_did(tmp_path, capsys):
    arguments = ["--workloads", "few,few-fresh", "--forms", "step,clip", "--rounds", "2"]
    arguments += ["--sittings", "1"]
    assert bench.main([*arguments, "--providers", "fused,lrfused", "--dtype", "float32"]) == 0
    record = json.loads((tmp_path / "cpu.json").read_text())
    assert record["schema"] == 2 and record["finished"] is True and record["device"] == "cpu"
    assert set(record["versions"]) == {"lrfused", "torch", "python", "compiler"}
    assert record["machine"]["processor"] and record["machine"]["threads"] >= 1
    assert set(record["commit"]) == {"hash", "dirty"}
    assert record["settings"]["rounds"] == 2 and record["settings"]["optimizer"]["lr"] == 0.01
    assert {k: len(v) for k, v in record["stream"].items()} == {
        "copy": 8,
        "triad": 8,
        "scale": 8,
    }
    found = record["measurements"]
    assert [(m["workload"], m["form"], m["provider"]) for m in found] == [
        (w, f, p)
        for w in ("few", "few-fresh")
        for f in ("step", "clip")
        for p in ("fused", "lrfused")
    ]
    for m in found:
        times = m["seconds"]
        assert times["lower"] <= times["median"] <= times["upper"] and len(times["rounds"]) == 2
        assert (m["parameters"], m["tensors"], m["dtype"]) == (47, 4, "float32")
        moved = m["bytes_per_parameter"] * 47
        assert m["gigabytes_per_second"] == pytest.approx(1e-9 * moved / times["median"])
        assert (m["host"] is None) == (m["provider"] == "fused")
    assert "few, float32: clip + step + schedule" in capsys.readouterr().out


def test_a_wrong_provider_fails_the_run(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(PROVIDERS, "lrfused", with_settings(lr=0.01001))
    arguments = ["--workloads", "few", "--providers", "fused,lrfused", "--rounds", "1"]
    arguments += ["--sitting", "1"]
    assert bench.main([*arguments, "--dtype", "float32", "--out", str(tmp_path / "x.json")]) == 1
    assert "FAILED: lrfused, few float32 step: wrong: p is off by" in capsys.readouterr().err
    found = json.loads((tmp_path / "x.json").read_text())["measurements"]
    assert [("seconds" in m) for m in found if m["provider"] == "lrfused"] == [False] * 3


def test_a_run_that_is_cut_off_keeps_what_it_had(monkeypatch, tmp_path):
    def interrupted(case, *arguments):
        if case.workload is FRESH:
            raise KeyboardInterrupt
        return runner.run_case(case, *arguments)

    monkeypatch.setattr(bench, "run_case", interrupted)
    with pytest.raises(KeyboardInterrupt):
        arguments = ["--workloads", "few,few-fresh", "--providers", "lrfused", "--forms", "clip"]
        bench.main([*arguments, "--sitting", "1"])
    record = json.loads((tmp_path / "cpu.json").read_text())
    assert record["finished"] is False
    assert {m["workload"] for m in record["measurements"]} == {"few"}


@pytest.mark.parametrize(
    ("option", "value"),
    [("--workloads", "gpt3"), ("--providers", ""), ("--dtype", "float16"), ("--rounds", "0")],
)
def test_bad_options_name_the_rule(option, value, capsys):
    with pytest.raises(SystemExit):
        bench.parse([option, value])
    error = capsys.readouterr().err
    assert option in error and "must be" in error and repr(value) in error


def test_a_quick_run_is_a_part_of_a_whole_one():
    quick, whole = bench.parse(["--quick"]), bench.parse([])
    for name in ("workloads", "providers", "forms"):
        assert set(getattr(quick, name)) < set(getattr(whole, name))
    assert bench.parse(["--quick", "--rounds", "5"]).rounds == 5
    assert quick.out != whole.out


@pytest.mark.parametrize("results", ["/some/results", "out", ".", "/"])
def test_no_place_of_the_machine_is_in_a_file(tmp_path, monkeypatch, results):
    monkeypatch.setenv("RESULTS_DIR", results)
    monkeypatch.setattr(sys, "prefix", "/somewhere/environment")
    tree = str(result_files.ROOT)
    said = {"command": ["/somewhere/environment/bin/python", f"{tree}/setup.py"], "in": tree}
    said["compiler"] = "g++ -I/somewhere/environment/include"
    others = {"output": "timed out, a/some/results", "seconds": 0.5, "/some/results2": "a / b"}
    result_files.write({**said, **others, "to": "/some/results/x"}, tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    place = "RESULTS_DIR" if results == "/some/results" else "/some/results"
    told = {"command": ["VENV/bin/python", "./setup.py"], "in": "."}
    told["compiler"] = "g++ -IVENV/include"
    assert found == {**told, **others, "to": f"{place}/x"}


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_and_what_differs_from_it(monkeypatch, tmp_path):
    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    monkeypatch.setattr(result_files, "ROOT", tmp_path)
    assert result_files.commit() == {"hash": None, "dirty": None}
    git("init")
    git("commit", "--allow-empty", "-m", "first")
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "benchmarks" / "results" / "cpu.json").write_text("{}")
    assert result_files.commit()["dirty"] is False and len(result_files.commit()["hash"]) == 40
    (tmp_path / "benchmarks" / "code.py").write_text("")
    assert result_files.commit()["dirty"] is True

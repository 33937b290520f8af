"""`make compat`: its stacks, what it makes of a part, and that the page says what was found."""

import json
import os
import sys
from pathlib import Path

import lib.benchmarks  # noqa: F401 (benchmarks are importable after it)
import pytest
from compat import environments, page, parts, process
from compat import run as compat
from compat.stacks import STACKS, TRITONS, Stack

from lrfused.versions import SUPPORTED

ROOT = Path(__file__).parents[2]
STACK = Stack("3.99", "9.8.7", "9.9.9", "1.2.3")
PASSED = {
    "status": "passed",
    "reason": "",
    "date": "2026-01-02T03:04:05+00:00",
    "commit": "1234567890ab",
}


def minor(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")[:2]))


# The stacks


def test_the_stacks_reach_from_the_floor_to_the_newest():
    """Oldest first; four minor releases of torch below the pinned one, which is in it, too."""
    versions = [minor(stack.torch) for stack in STACKS]
    assert versions == sorted(set(versions))
    (pinned,) = (stack for stack in STACKS if stack.is_pinned)
    assert versions.index(minor(pinned.torch)) >= 4
    assert {stack.python for stack in STACKS} >= {"3.10", "3.11", "3.12", "3.13"}
    assert Stack("3.12", "2.11.0", "3.6.0", "2.5.2") in STACKS
    assert set(TRITONS) <= {stack.triton for stack in STACKS}


def test_the_pinned_stack_is_that_of_the_constraints():
    (pinned,) = (stack for stack in STACKS if stack.is_pinned)
    constraints = (ROOT / "constraints.txt").read_text()
    for name in ("torch", "triton", "numpy"):
        assert f"{name}=={getattr(pinned, name)}" in constraints


def test_what_is_supported_is_what_the_stacks_have():
    """The oldest and the newest of each, in the README, too."""
    found = {
        name: {minor(getattr(stack, name)) for stack in STACKS}
        for name in ("python", "torch", "triton", "numpy")
    }
    readme = (ROOT / "README.md").read_text()
    assert found.keys() == SUPPORTED.keys()
    for name, (title, floor, newest) in SUPPORTED.items():
        assert (min(found[name]), max(found[name])) == (minor(floor), minor(newest))
        assert f"| {title} | {floor} | {newest} |" in readme


# The page


def test_the_page_is_what_the_results_say():
    assert page.PAGE.read_text() == page.page(), "make compat ARGS=--page writes it"


def test_every_part_of_every_stack_was_run_and_is_well():
    """What the README calls supported was seen: nothing failed, is slow or is missing."""
    wanted = {stack.name: {part.name for part in parts.PARTS} for stack in STACKS}
    for file, names in {**wanted, "triton-wheels": set(TRITONS)}.items():
        found = page.read(file).get("parts", {})
        assert set(found) == names, file
        for name, part in found.items():
            assert part["status"] == parts.PASSED, (file, name, part["reason"])


def test_what_is_red_slow_or_was_not_run_shows(monkeypatch):
    times = {f"tensors{n}{kind}": {"ratio": 4.0} for n in (148, 1000) for kind in ("", "_fresh")}
    times["tensors1000_fresh"] = {"ratio": 0.96}
    record = {
        "kernels": {**PASSED, "compiled": 88},
        "interpreter": {**PASSED, "status": "failed", "reason": "3 failed"},
        "times": {**PASSED, "status": "slow", **times},
        "rehearsal": {**PASSED, "date": "2025-01-02T03:04:05+00:00", "commit": "fedcba9876543210"},
    }
    cells = page._cells(STACK, {"parts": record})
    assert cells[4:] == [
        "88 compiled",
        "**failed**: 3 failed",
        "not run",
        "4.0 / 4.0",
        "**slow**: 4.0 / 1.0",
        "passed",
        "2025-01-02, fedcba9876",
    ]


# A run


def test_a_part_is_noted_beside_the_others(tmp_path, monkeypatch):
    monkeypatch.setenv("COMMIT", "abcdef-dirty")
    path = tmp_path / "new" / "stack.json"
    compat.note(path, "kernels", {"status": "passed", "reason": ""}, {"stack": vars(STACK)})
    compat.note(path, "times", {"status": "slow", "reason": "tensors148"}, {"stack": vars(STACK)})
    record = json.loads(path.read_text())
    assert record["stack"]["torch"] == "9.8.7"
    assert {name: part["status"] for name, part in record["parts"].items()} == {
        "kernels": "passed",
        "times": "slow",
    }
    assert record["parts"]["times"]["commit"] == "abcdef-dirty"


def test_a_stack_that_cannot_be_had_is_not_run_and_says_why(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(environments, "HOME", tmp_path / "home")
    bad = compat.run_stack(STACK, ["kernels", "times"], 1, tmp_path)
    record = json.loads((tmp_path / f"{STACK.name}.json").read_text())
    found = {name: (part["status"], part["reason"]) for name, part in record["parts"].items()}
    reason = "there is no python3.99"
    assert found == {"kernels": ("not run", reason), "times": ("not run", reason)}
    assert bad == [f"{STACK.name} kernels", f"{STACK.name} times"]
    assert "not run" in page._cells(STACK, record)[4]


def test_unknown_names_are_refused(capsys):
    for arguments in (["--stacks", "python2-torch1"], ["--parts", "kernels,sleep"]):
        with pytest.raises(SystemExit):
            compat.parse(arguments)
        assert "must be of" in capsys.readouterr().err


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """A stack of this Python whose processes print and leave what a test wants."""
    monkeypatch.setattr(environments, "HOME", tmp_path)
    tree = environments.tree(STACK)
    tree.mkdir(parents=True)
    monkeypatch.setattr(parts, "python", lambda stack: Path(sys.executable))
    return tree


def write_script(tree: Path, name: str, code: str) -> None:
    (tree / name).parent.mkdir(parents=True, exist_ok=True)
    (tree / name).write_text(code)


def test_times_below_one_are_slow(commands):
    found = {case: {"ratio": 2.0} for case in parts.CASES}
    for ratio, status in ((1.0, "passed"), (0.99, "slow"), (float("nan"), "slow")):
        found["tensors1000"] = {"ratio": ratio}
        write_script(commands, "benchmarks/walk_times.py", f"print({json.dumps(found)!r})")
        assert parts.times(STACK, 1)["status"] == status
    write_script(commands, "benchmarks/walk_times.py", "raise ValueError('no walk')")
    failed = parts.times(STACK, 1)
    assert (failed["status"], failed["reason"]) == ("failed", "ValueError: no walk")


def test_kernels_are_counted_and_failures_named(commands):
    row = {"target": "sm_80", "status": "ok", "reason": ""}
    unknown = {"target": "sm_100", "status": "unknown", "reason": "not in this Triton"}
    failed = {"target": "sm_90", "status": "failed", "reason": "measure: out of registers"}
    write = "import sys; open(sys.argv[sys.argv.index('--json') + 1], 'w').write({!r})"
    script = "tests/triton/compiling.py"
    write_script(commands, script, write.format(json.dumps([row, row, unknown])))
    found = parts.kernels(STACK, 1)
    assert (found["status"], found["compiled"]) == ("passed", 2)
    assert found["unknown_targets"] == {"sm_100": "not in this Triton"}
    write_script(commands, script, write.format(json.dumps([row, failed])))
    found = parts.kernels(STACK, 1)
    assert (found["status"], found["reason"]) == ("failed", "measure: out of registers")
    write_script(commands, script, "import nothing_of_that_name")
    assert "nothing_of_that_name" in parts.kernels(STACK, 1)["reason"]
    write_script(commands, script, write.format("[]"))
    assert parts.kernels(STACK, 1)["status"] == "failed"  # nothing was compiled


def test_tests_are_counted_and_failures_named(commands):
    code = "import pytest\ndef test_a(): pass\ndef test_b(): assert 0\n"
    code += "@pytest.mark.skip\ndef test_c(): pass\ndef test_d(oh): pass\n"
    write_script(commands, "tests/test_small.py", code)
    found = parts._tests(STACK, ["tests"], 1, {})
    assert [found[key] for key in ("status", "passed", "failed", "skipped")] == ["failed", 1, 2, 1]
    assert found["which"] == ["tests.test_small::test_b", "tests.test_small::test_d"]
    assert parts._tests(STACK, ["nothing"], 1, {})["status"] == "failed"


# Processes and the copy of the tree


def test_a_process_that_hangs_ends_when_its_time_is_over(tmp_path):
    code = "import time; print('begun', flush=True); time.sleep(600)"
    command, log = [sys.executable, "-c", code], tmp_path / "log"
    done = process.run(command, tmp_path, 3.0, log, os.environ)
    assert (done.status, done.output) == (None, "begun\n")
    assert parts._reason(done) == "not done after 3 s"


def test_the_copy_follows_the_tree_and_keeps_what_was_built(tmp_path, monkeypatch):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    os.system(f"git -C {source} init -q")
    for name in ("kept.py", "changed.py", "removed.py", "ignored.so"):
        (source / name).write_text(name)
    (source / ".gitignore").write_text("*.so\n")
    monkeypatch.setattr(environments, "ROOT", source)
    environments.copy_tree(target)
    assert not (target / "ignored.so").exists()
    (target / "built.so").write_text("here")
    date = (target / "kept.py").stat().st_mtime_ns
    (source / "changed.py").write_text("new")
    (source / "removed.py").unlink()
    environments.copy_tree(target)
    assert (target / "changed.py").read_text() == "new"
    assert not (target / "removed.py").exists()
    assert (target / "built.so").exists() and (target / "kept.py").stat().st_mtime_ns == date


def test_an_interpreter_is_found_by_its_name(tmp_path, monkeypatch):
    """One on PATH that does not run (a shim) is passed over."""
    version = "{}.{}".format(*sys.version_info)
    shim = tmp_path / f"python{version}"
    shim.write_text("#!/bin/sh\necho not here >&2\nexit 127\n")
    shim.chmod(0o755)
    versions = tmp_path / "versions" / f"{version}.1" / "bin"
    versions.mkdir(parents=True)
    (versions / "python").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert environments.find_python(version) == versions / "python"
    with pytest.raises(environments.Unavailable, match=r"there is no python3\.99"):
        environments.find_python("3.99")

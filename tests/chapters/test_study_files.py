"""What every study's file has and may not have, read from its text."""

import ast
import inspect

import pytest
from lib.benchmarks import BENCHMARKS

# isort: split
from studies.common.study import FOLDER, NAMES, SCHEDULES, WARMUP, Study

CODE_LINES = 8
PUBLIC_NAMES = {"analysis", "batchnorm", "groups", "losses", "schedules"}


@pytest.fixture(scope="module", params=NAMES)
def study(request) -> Study:
    return Study(request.param)


def tree(study: Study) -> ast.Module:
    return ast.parse(study.file.read_text(encoding="utf-8"))


def test_there_are_twenty_five():
    files = {file.stem for file in FOLDER.glob("*.py")} - {"__init__", "__main__"}
    assert (len(WARMUP), len(SCHEDULES)) == (14, 11)
    assert files == set(NAMES)
    assert FOLDER == BENCHMARKS / "studies"


def test_it_says_what_it_claims_and_has_a_control(study):
    assert study.subject and study.claim
    assert "    " in study.text, "the formula stands as a code block"
    assert "Control" in study.text


def test_it_has_what_a_study_has(study):
    module = study.module
    assert module.SEEDS >= 5
    assert len(set(module.SWAPPED)) == 2
    for name, arguments in (
        ("run", ["seeds", "device"]),
        ("check", ["result"]),
        ("main_panel", ["axes", "result"]),
        ("plot", ["result"]),
    ):
        assert list(inspect.signature(getattr(module, name)).parameters) == arguments


def test_its_code_is_short_and_is_what_it_runs(study):
    calls = [
        node
        for node in ast.walk(tree(study))
        if isinstance(node, ast.Call | ast.Attribute | ast.Name)
        and getattr(getattr(node, "func", node), "id", None) == "recipe"
    ]
    assert calls, "recipe is used"
    (function,) = ast.parse(study.recipe).body
    assert isinstance(function, ast.FunctionDef)
    body = [node for node in function.body if not isinstance(node, ast.Expr)]
    lines = sum((node.end_lineno or 0) - node.lineno + 1 for node in body)
    assert lines <= CODE_LINES
    names = ("lrfused.", "opt.", *(f"{name}." for name in PUBLIC_NAMES))
    assert any(name in study.recipe for name in names)


def test_it_uses_the_public_interface_only(study):
    private = []
    for node in ast.walk(tree(study)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lrfused":
            names = {alias.name for alias in node.names}
            if node.module != "lrfused" or not names <= PUBLIC_NAMES:
                private.append(ast.unparse(node))
        elif isinstance(node, ast.Import):
            private += [a.name for a in node.names if a.name.startswith("lrfused.")]
        elif isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            text = ast.unparse(node)
            is_own = text.startswith("self.") or node.attr.endswith("__")
            private += [] if is_own else [text]
    assert private == []


def test_the_optimizer_evaluates_the_schedule(study):
    """No study writes a hyperparameter, and none asks for a backend that is not the fused one."""
    text = study.file.read_text(encoding="utf-8")
    written = [
        ast.unparse(node)
        for node in ast.walk(tree(study))
        if isinstance(node, ast.Assign | ast.AugAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Subscript) and "param_groups" in ast.unparse(target)
    ]
    assert written == []
    assert "torch.optim" not in text
    assert "backend=" not in text

"""The tests' own house: every test file stands in a room, and no module imports a test module."""

import ast
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
MODULES = {path.stem for path in TESTS.rglob("test_*.py")} | {"conftest"}


def taken(source: str) -> set[str]:
    """The test modules and conftests that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found |= MODULES & {part for name in names for part in name.split(".")}
    return found


def test_no_module_imports_a_test_module():
    """What tests share is in tests/lib or in a helper of their room."""
    sources = {path: path.read_text(encoding="utf-8") for path in TESTS.rglob("*.py")}
    found = {str(path.relative_to(TESTS)): taken(source) for path, source in sources.items()}
    assert len(found) > len(MODULES)
    assert {name: names for name, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "source",
    [
        "from step.test_rooms import LR",
        "from .test_rooms import LR",
        "from step import test_rooms",
        "from . import helpers, test_rooms",
        "import step.test_rooms as other",
        "def late():\n    import test_rooms",
    ],
)
def test_an_import_of_a_test_module_is_seen(source):
    assert taken(source) == {"test_rooms"}


def test_an_import_of_a_conftest_is_seen():
    assert taken("from .conftest import SEED") == {"conftest"}
    assert taken("from lib.seeds import SEED\nimport pytest") == set()


def test_every_test_file_stands_in_a_room():
    assert [path.name for path in TESTS.glob("test_*.py")] == []


def test_the_rooms_hide_no_module_of_others():
    """The folder of the tests is on the path, before what is installed."""
    rooms = {path.parent.name for path in TESTS.glob("*/__init__.py")}
    others = {*sys.stdlib_module_names, "torch", "triton", "build", "packaging"}
    others |= {path.stem for path in (TESTS.parent / "benchmarks").glob("*.py")}
    others |= {path.parent.name for path in (TESTS.parent / "benchmarks").glob("*/__init__.py")}
    assert rooms & others == set()

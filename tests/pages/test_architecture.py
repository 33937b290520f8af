"""docs/architecture.md draws the tree as it is: every file, no import that goes up, no circle."""

import ast
import graphlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "lrfused"
DRAWING = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("```")[1]

FILES = re.findall(r"\w+\.(?:cpp|cuh|cu|h|inl|py)", DRAWING)


def drawn_order():
    """The layers of the package from the top down; what is drawn in the last line is one layer."""
    drawn = DRAWING.split("csrc/core/")[0]
    folders = re.findall(r"^  (\w+)(?:/|  )", drawn, flags=re.M)
    return [*folders, *re.findall(r"\w+", drawn.strip().splitlines()[-1])]


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(tree):
    """The names that a module imports as it is imported itself: not those inside its functions."""
    waiting = [tree]
    while waiting:
        for node in ast.iter_child_nodes(waiting.pop()):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield node.module
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                waiting.append(node)


def graph_of(package):
    """Which modules each module imports; the package itself, which imports all, is left out."""
    sources = {name_of(path): path for path in package.rglob("*.py") if path.parent != ROOT}
    found = {
        name: set(imports(ast.parse(path.read_text(encoding="utf-8"))))
        for name, path in sources.items()
    }
    return {name: (found[name] & sources.keys()) - {name, "lrfused"} for name in sources}


GRAPH = graph_of(PACKAGE)


def test_no_import_goes_up():
    order = drawn_order()

    def rank(module):
        return order.index(module.split(".")[1])

    upwards = [
        (name, other)
        for name, others in GRAPH.items()
        for other in others
        if name != "lrfused" and rank(other) < rank(name)
    ]
    assert len(GRAPH) > 100 and not upwards


def test_no_circle():
    graphlib.TopologicalSorter(GRAPH).prepare()  # CycleError names the modules


def test_a_circle_would_be_seen():
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(GRAPH | {"lrfused.rules.rule": {"lrfused.optim.base"}}).prepare()


@pytest.mark.parametrize("folder", ["core", "rules", "host", "cpu", "cuda"])
def test_every_source_is_drawn(folder):
    """By its name without the ending: a header goes with its source."""
    drawn = {Path(name).stem for name in FILES}
    there = {path.stem for path in (ROOT / "csrc" / folder).iterdir()}
    copies = {f"kernels_{name}" for name in ("baseline", "avx2", "avx512")}  # of kernels.inl
    assert there - copies <= drawn


def test_what_is_drawn_is_there():
    tops = (ROOT / "csrc", ROOT / "benchmarks", ROOT / "tests" / "ptx")
    there = {path.name for top in tops for path in top.rglob("*")}
    assert set(FILES) - {"setup.py", "backend.py"} <= there
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == set(drawn_order()) & folders and len(folders) > 10

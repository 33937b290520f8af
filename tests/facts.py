"""What the tests show, as a page: python tests/facts.py writes docs/facts.md.

The subject of a test module is the first sentence of its docstring; the fact that a test shows is
the first paragraph of its docstring or, without one, its name. The files are read, not imported.
"""

import ast
import inspect
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "facts.md"
# The order of the page.
FOLDERS = {
    "tests/contract": "The drop-in contract",
    "tests/faults": "Odd inputs and faults",
    "tests/from_torch": "torch's schedulers as schedules",
    "tests/step": "The step itself",
}
HEAD = """\
# Facts

Every fact about `lrfused.AdamW` and `schedules.from_torch` that a test shows, and the test. A test
runs alone with `pytest PATH::NAME`.

Generated from the names and docstrings of the tests by `make facts`; `make test` fails where this
page is not what the tests say.
"""


@dataclass(frozen=True)
class Module:
    """A test module: its path from the root, its subject ("" without one), facts by test name."""

    path: str
    subject: str
    facts: dict[str, str]


def read_module(path: str, source: str) -> Module:
    """The facts of one test module."""
    tree = ast.parse(source)
    tests = (
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    )
    return Module(path, _paragraph(tree), {test.name: _fact(test) for test in tests})


def modules(folder: str) -> list[Module]:
    """All test modules of a folder, by name."""
    paths = sorted((ROOT / folder).glob("test_*.py"))
    return [read_module(f"{folder}/{p.name}", p.read_text(encoding="utf-8")) for p in paths]


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for folder, title in FOLDERS.items():
        parts.append(f"## {title}\n")
        parts += [_section(module) for module in modules(folder)]
    return "\n".join(parts)


def _section(module: Module) -> str:
    rows = [f"| {_cell(fact)} | `{module.path}::{name}` |" for name, fact in module.facts.items()]
    return "\n".join(
        [f"### {module.subject.rstrip('.')}\n", "| fact | test |", "|---|---|", *rows, ""]
    )


def _paragraph(node: ast.Module | ast.FunctionDef) -> str:
    """The first paragraph of a docstring as one line."""
    text = inspect.cleandoc(ast.get_docstring(node) or "")
    return " ".join(text.split("\n\n")[0].split())


def _fact(test: ast.FunctionDef) -> str:
    words = test.name.removeprefix("test_").replace("_", " ")
    return _paragraph(test) or f"{words[0].upper()}{words[1:]}."


def _cell(text: str) -> str:
    """Text that a Markdown table shows as it is; an underscore inside a word needs no help."""
    return re.sub(r"[|*<]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")

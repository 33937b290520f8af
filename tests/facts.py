"""What the tests show, as pages: python tests/facts.py writes docs/facts.md and differences.md.

The subject of a test module is the first sentence of its docstring; the fact that a test shows is
the first paragraph of its docstring or, without one, its name; what to do about it the second. The
files are read, not imported.
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
    "tests/rules": "AdamW, SGD and Lion as rules",
}
HEAD = """\
# Facts

Every fact about lrfused's optimizers and `schedules.from_torch` that a test shows, and the test. A
test runs alone with `pytest PATH::NAME`.

Generated from the names and docstrings of the tests by `make facts`; `make test` fails where this
page is not what the tests say.
"""

DIFFERENCES = ROOT / "docs" / "differences.md"
# The order of that page: modules of tests/differences.
DIFFER_IN = (
    "arguments",
    "gradients",
    "loss_scaling",
    "groups",
    "checkpoints",
    "rounding",
    "sgd",
)
DIFFERENCES_HEAD = """\
# Differences from torch.optim

`lrfused.AdamW` is a `torch.optim.AdamW` and `lrfused.SGD` a `torch.optim.SGD`, and they behave like
them, except for what this page lists: each difference with its reason, what to write instead if
there is something, and the test that shows both sides. The tests compare AdamW with torch's, those
of the last section SGD; most of the others hold for SGD, too, but torch's SGD accepts gradients of
another dtype, and has no `capturable` and no `state["step"]`. On a GPU the numbers in
`param_groups` and errors may be some steps late, too: see the [README](../README.md). What is as in
torch is in [facts.md](facts.md).

Generated from the docstrings of `tests/differences` by `make facts`; `make test` fails where this
page is not what the tests say.
"""


@dataclass(frozen=True)
class Module:
    """A test module: its path from the root, its subject ("" without one), facts by test name.

    ``advice`` has the second paragraphs, "" where there is none.
    """

    path: str
    subject: str
    facts: dict[str, str]
    advice: dict[str, str]


def read_module(path: str, source: str) -> Module:
    """The facts of one test module."""
    tree = ast.parse(source)
    tests = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    facts = {test.name: _fact(test) for test in tests}
    return Module(path, _paragraph(tree), facts, {test.name: _paragraph(test, 1) for test in tests})


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


def differences_page() -> str:
    """The page of the differences."""
    folder = {module.path: module for module in modules("tests/differences")}
    ordered = [folder[f"tests/differences/test_{name}.py"] for name in DIFFER_IN]
    return "\n".join([DIFFERENCES_HEAD, *map(_differences, ordered)])


def _differences(module: Module) -> str:
    rows = [
        f"| {_cell(fact)} | {_cell(module.advice[name])} | `{module.path}::{name}` |"
        for name, fact in module.facts.items()
    ]
    title = f"## {module.subject.rstrip('.')}\n"
    return "\n".join([title, "| difference | instead | test |", "|---|---|---|", *rows, ""])


def _section(module: Module) -> str:
    rows = [f"| {_cell(fact)} | `{module.path}::{name}` |" for name, fact in module.facts.items()]
    return "\n".join(
        [f"### {module.subject.rstrip('.')}\n", "| fact | test |", "|---|---|", *rows, ""]
    )


def _paragraph(node: ast.Module | ast.FunctionDef, index: int = 0) -> str:
    """A paragraph of a docstring, the first one unless told otherwise, as one line."""
    text = inspect.cleandoc(ast.get_docstring(node) or "")
    return " ".join("".join(text.split("\n\n")[index : index + 1]).split())


def _fact(test: ast.FunctionDef) -> str:
    words = test.name.removeprefix("test_").replace("_", " ")
    return _paragraph(test) or f"{words[0].upper()}{words[1:]}."


def _cell(text: str) -> str:
    """Text that a Markdown table shows as it is; an underscore inside a word needs no help.

    Between backticks all but the table's own sign already stands as it is.
    """
    parts = text.split("`")
    special = r"[|*<]|(?<![^\W_])_|_(?![^\W_])"
    parts[::2] = [re.sub(special, r"\\\g<0>", part) for part in parts[::2]]
    parts[1::2] = [part.replace("|", r"\|") for part in parts[1::2]]
    return "`".join(parts)


if __name__ == "__main__":
    for path, text in ((PAGE, page()), (DIFFERENCES, differences_page())):
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")

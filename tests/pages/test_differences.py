"""docs/differences.md is what the tests say, and every difference is shown on both sides."""

import re

import facts
import pytest

FOLDER = facts.ROOT / "tests" / "differences"
SOURCE = '''
"""Numbers."""

def test_first():
    """They differ: `a | _b`,
    not _c_.

    Write `x`
    instead.

    More."""

def test_second():
    """They differ."""
'''


def test_the_page_is_what_the_generator_gives():
    page = facts.differences_page()
    assert facts.DIFFERENCES.read_text(encoding="utf-8") == page, "run `make facts`"


def test_the_readme_links_to_the_page():
    assert "(docs/differences.md)" in (facts.ROOT / "README.md").read_text(encoding="utf-8")


def test_every_module_is_on_the_page():
    found = sorted(path.stem.removeprefix("test_") for path in FOLDER.glob("test_*.py"))
    assert found == sorted(facts.DIFFER_IN)


@pytest.mark.parametrize("name", facts.DIFFER_IN)
def test_every_test_shows_both_sides(name):
    """Each has a docstring, and steps torch's and ours."""
    source = (FOLDER / f"test_{name}.py").read_text(encoding="utf-8")
    module = facts.read_module(name, source)
    texts = re.split(r"^def (test_\w+)", source, flags=re.M)
    assert texts[1::2] == list(module.facts) and module.subject
    for test, text in zip(texts[1::2], texts[2::2], strict=True):
        assert '"""' in text and "torch" in module.facts[test].lower(), test
        assert "TORCH" in text and "OURS" in text, test


def test_a_second_paragraph_says_what_to_write():
    module = facts.read_module("tests/differences/test_y.py", SOURCE)
    assert module.advice == {"test_first": "Write `x` instead.", "test_second": ""}
    assert facts._differences(module).splitlines()[4:] == [
        r"| They differ: `a \| _b`, not \_c\_. | Write `x` instead. "
        "| `tests/differences/test_y.py::test_first` |",
        "| They differ. |  | `tests/differences/test_y.py::test_second` |",
    ]

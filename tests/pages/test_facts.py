"""docs/facts.md is what the tests say, and every test module says what it is about."""

import re

import facts
import pytest

SOURCE = '''
"""What is shown,
over two lines.

More about it.
"""

def helper(): ...

def test_two_and_two_is_four(): ...

def test_named():
    """A | B: the docstring's first
    paragraph.

    Not this.
    """
'''


def test_the_page_is_what_the_generator_gives():
    assert facts.PAGE.read_text(encoding="utf-8") == facts.page(), "run `make facts`"


@pytest.mark.parametrize("folder", facts.FOLDERS)
def test_every_module_has_a_subject_and_facts(folder):
    found = facts.modules(folder)
    assert found
    assert not [module.path for module in found if not module.subject], "a docstring is missing"
    assert not [module.path for module in found if not module.facts], "no tests"


def test_names_and_docstrings_become_facts():
    module = facts.read_module("tests/x/test_y.py", SOURCE)
    assert module.subject == "What is shown, over two lines."
    assert module.facts == {
        "test_two_and_two_is_four": "Two and two is four.",
        "test_named": "A | B: the docstring's first paragraph.",
    }
    assert facts.read_module("y.py", "def test_z(): ...").subject == ""


def test_no_test_is_missing_on_the_page():
    """One in a class would be, and so would the first of two with the same name."""
    for module in (module for folder in facts.FOLDERS for module in facts.modules(folder)):
        source = (facts.ROOT / module.path).read_text(encoding="utf-8")
        assert re.findall(r"^ *(?:async )?def (test_\w+)", source, re.M) == list(module.facts)

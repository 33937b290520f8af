"""What `make test` leaves to the slow tests is chosen by name; a renamed one would be forgotten."""

import re
from pathlib import Path

from conftest import IN_PROCESSES, INTERPRETED_LATER, KEPT, NOT_KEPT


def test_the_names_that_choose_are_there():
    folder = Path(__file__).parent
    files = list(folder.rglob("test_*.py"))
    there = {file.name for file in files} | {place.name for place in folder.iterdir()}
    for file in files:
        there.update(re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE))
    assert {*IN_PROCESSES, *INTERPRETED_LATER, *KEPT, *NOT_KEPT} <= there

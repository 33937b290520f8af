"""What a test says of a cell that failed."""

import os

from lib.seeds import SEED

from .launching import OK


def check(cell: str, became: dict[str, str]) -> None:
    """All its ranks say that all is well."""
    assert became[cell] == OK, f"repeat with {SEED}={os.environ[SEED]}\n{became[cell]}"

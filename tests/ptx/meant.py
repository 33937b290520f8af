"""Races that are meant: what the lines of the source on both sides have, and why it is well."""

import itertools
from pathlib import Path

from ptx.machine import Library, mean

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (ROOT / "csrc" / "cuda", ROOT / "lrfused" / "backends" / "triton")
Lines = tuple[str, ...]  # a file, and what its lines have

THRESHOLDS_ARE_STORED = ("norms.cuh", "a.workspace.thresholds[2 * group + i % 2] =")
# Releases of Triton tell the lines of a function, or of who calls it.
ADDED_TO = ("plan.py", "tl.store(place, tl.load(place) + value)", "add_to(")
SCALE_UPDATED = ("plan.py", "words + GROWTH_TRACKER", "words + HYSTERESIS_TRACKER")
SCALE_UPDATED += ("state.loss_scale", "update_loss_scale(")
MEANT: dict[tuple[Lines, Lines], str] = {
    (THRESHOLDS_ARE_STORED, THRESHOLDS_ARE_STORED): "spans that share a group store the same",
    (THRESHOLDS_ARE_STORED, ("norms.cuh", "thresholds[")): "who loads them has stored the same",
    (ADDED_TO, ADDED_TO): "every thread loads the number, the one that stores it uses it",
    (SCALE_UPDATED, SCALE_UPDATED): "every thread loads the scale and its counts, the one that "
    "stores them uses them",
}


def allow(library: Library) -> None:
    """From here on no race of these lines is an error."""
    if library.path not in _pairs:
        _pairs[library.path] = _find(library)
    for pair in _pairs[library.path]:
        mean(*pair)


_pairs: dict[Path, list[tuple[int, int]]] = {}


def _find(library: Library) -> list[tuple[int, int]]:
    """The lines of PTX."""
    return [
        pair
        for first, second in MEANT
        for pair in itertools.product(lines_of(library, *first), lines_of(library, *second))
    ]


def lines_of(library: Library, file: str, *texts: str) -> list[int]:
    """Where PTX comes from lines that have one of the texts."""
    found = next(folder / file for folder in FOLDERS if (folder / file).exists())
    numbered = enumerate(found.read_text().splitlines(), 1)
    places = {f"{file}:{i}" for i, line in numbered if any(t in line for t in texts)}
    return [int(n) for n, chain in library.sources.items() if places & set(chain.split(" < "))]

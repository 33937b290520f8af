"""What all result files share: their folder, their commit, and that they are whole at any time.

Nothing but Python is needed here: `make gpu` begins before anything is built.
"""

import json
import os
import re
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path(__file__).parent / "results"
SCHEMA = 2


def folder() -> Path:
    """Where results go: RESULTS_DIR if it is set."""
    return Path(os.environ.get("RESULTS_DIR") or FOLDER)


def head() -> dict[str, Any]:
    """How every file begins."""
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"schema": SCHEMA, "finished": False, "date": date, "commit": commit()}


def write(record: dict[str, Any], path: Path) -> None:
    """All or nothing: an interrupt leaves the earlier file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(without_places(json.dumps(record, indent=1)) + "\n")
    partial.replace(path)


def without_places(text: str) -> str:
    """Where tree, results and a virtual environment lie on this machine concerns no reader."""
    places = {} if folder() == FOLDER else {str(folder().resolve()): "RESULTS_DIR"}
    places[str(ROOT)] = "."
    if sys.prefix != sys.base_prefix:
        places[sys.prefix] = "VENV"
    for place, name in places.items():
        if place != os.sep:  # which stands everywhere
            option = r"(?<=-[IL])"  # of a compiler, which stands right before a folder
            text = re.sub(rf"(?:(?<!\w)|{option}){re.escape(place)}(?!\w)", name, text)
    return text


def commit() -> dict[str, Any]:
    """The commit, and whether anything but result files differs from it; None outside git.

    Where a copy of the tree came without its history, the variable COMMIT can say what
    ``git describe --always --dirty --abbrev=40 --exclude='*'`` said at home.
    """
    told = os.environ.get("COMMIT")
    if told:
        return {"hash": told.removesuffix("-dirty"), "dirty": told.endswith("-dirty")}
    results = (":!benchmarks/results", ":!benchmarks/studies/results")
    written = (*results, ":!docs/compatibility.md", ":!docs/studies", ":!docs/studies.md")
    changes = _git("status", "--porcelain", "--", ".", *written)
    return {"hash": _git("rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None

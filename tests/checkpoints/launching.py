"""Launches the processes of a world size and collects what became of the cells.

Where a process dies in a cell, the cells that had not begun go on in new processes.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path

TESTS = Path(__file__).parents[1]
OK, BEGUN = "ok", "begun"
LAUNCHES = 4
PATIENCE = 10.0  # seconds that the others have once a process has died
TAIL = 3000  # characters of a process's last words


def launch(
    folder: Path, world: int, wanted: Collection[str], seed: int, limit: float
) -> dict[str, str]:
    """What became of each cell: OK, or what each rank says; ``limit``: seconds of all of it."""
    found, ends, left = {}, time.monotonic() + limit, sorted(wanted)
    for index in range(LAUNCHES):
        place = folder / f"launch-{index}"
        place.mkdir()
        _run(place, world, left, seed, ends - time.monotonic())
        found |= _outcomes(place, world, left)
        left = sorted(set(wanted) - set(found))
        if not left or time.monotonic() > ends:
            break
    return {cell: found.get(cell, "not reached") for cell in wanted}


def _run(folder: Path, world: int, wanted: list[str], seed: int, limit: float) -> None:
    (folder / "cells.json").write_text(json.dumps(wanted))
    processes = [_start(folder, rank, world, seed, limit) for rank in range(world)]
    ends = time.monotonic() + limit + PATIENCE
    try:
        while any(process.poll() is None for process in processes) and time.monotonic() < ends:
            if any(process.poll() for process in processes):
                ends = min(ends, time.monotonic() + PATIENCE)
            time.sleep(0.05)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _start(
    folder: Path, rank: int, world: int, seed: int, limit: float
) -> "subprocess.Popen[bytes]":
    places = [str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH")]
    path = os.pathsep.join(filter(None, places))
    arguments = [str(folder), str(rank), str(world), str(seed), str(limit)]
    with (folder / f"output-{rank}.txt").open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "checkpoints.ranks", *arguments],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def _outcomes(folder: Path, world: int, wanted: list[str]) -> dict[str, str]:
    """Of the cells that all their ranks began; one that did not end says what those printed."""
    by_rank = [_said(folder, rank) for rank in range(world)]
    found = {}
    for cell in wanted:
        said = {rank: of[cell] for rank, of in enumerate(by_rank) if cell in of}
        if len(said) == (1 if ":plain-" in cell else world):
            bad = {rank: text for rank, text in said.items() if text != OK}
            texts = (
                f"--- rank {rank}: "
                + (f"ended in this cell\n{_last_words(folder, rank)}" if text == BEGUN else text)
                for rank, text in bad.items()
            )
            found[cell] = "\n".join(texts) if bad else OK
    return found


def _said(folder: Path, rank: int) -> dict[str, str]:
    file = folder / f"results-{rank}.jsonl"
    return dict(json.loads(line) for line in file.read_text().splitlines()) if file.exists() else {}


def _last_words(folder: Path, rank: int) -> str:
    return (folder / f"output-{rank}.txt").read_text(errors="replace")[-TAIL:]

"""One process of a launch: python -m checkpoints.ranks FOLDER RANK WORLD SEED LIMIT

Goes through the cells that FOLDER/cells.json names and appends what became of each of them to
FOLDER/results-RANK.jsonl: "begun", then "ok" or a traceback. The cells of a checkpoint have a
process group of their own, which ends with them: a rank that fails breaks the connections of those
that wait for it.
"""

import contextlib
import faulthandler
import gc
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
from torch import distributed
from torch.distributed.checkpoint import CheckpointException

from . import cells, chains, going_on, resharding
from .cells import Job
from .chains import Chain
from .launching import BEGUN, OK

WAIT = timedelta(seconds=12)  # for another rank: a cell that hangs fails after that

SOON = 1.0  # seconds in which the others have failed as well, if they did at the same place
FAILED = "failed"
DEEPEST = -6  # frames of a traceback that are kept


ERRORS = (Exception, CheckpointException)  # the latter is none of the former


class Apart(Exception):
    """The ranks of a job are not at the same place any more."""


class Rank:
    """This process among the others of the launch."""

    def __init__(self, folder: Path, rank: int, world: int, seed: int):
        self.folder, self.rank, self.world, self.seed = folder, rank, world, seed
        self._recorded: set[str] = set()

    def record(self, cell: str, does: Callable[[], None]) -> None:
        """What becomes of a cell; the ranks stand together afterwards.

        Raises:
            Apart: it failed, and another rank may wait for something that this one never sent.
        """
        failure, place = None, []
        try:
            does()
            if distributed.is_initialized():
                distributed.barrier()
        except ERRORS as error:
            failure = traceback.format_exc(limit=DEEPEST)
            place = [
                (frame.name, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)
            ]
        self._write(cell, failure or OK)
        if failure and distributed.is_initialized() and not self._agree(cell, place):
            raise Apart("not tried: a cell of the same checkpoint failed before it on this rank")

    def _agree(self, cell: str, place: list[tuple[str, int]]) -> bool:
        """All ranks failed at the same place, so none waits for another."""
        mine = self.folder / f"{cell.replace(':', '-')}-{self.rank}"
        mine.with_suffix(".part").write_text(repr(place))
        mine.with_suffix(".part").rename(mine)
        ends = time.monotonic() + SOON
        names = [f"{cell.replace(':', '-')}-{rank}" for rank in range(self.world)]
        files = [self.folder / name for name in names]
        while not all(file.exists() for file in files):
            if time.monotonic() > ends:
                return False
            time.sleep(0.01)
        return len({file.read_text() for file in files}) == 1

    def _write(self, cell: str, outcome: str) -> None:
        self._recorded.add(cell)
        with (self.folder / f"results-{self.rank}.jsonl").open("a") as file:
            file.write(json.dumps([cell, outcome]) + "\n")

    def go(self, index: int, job: Job | Chain, wanted: set[str]) -> None:
        """The cells of a job, on all ranks, or, without a group, on one of them."""
        alone = isinstance(job, Job) and job.setting == "plain"
        if alone and index % self.world != self.rank:
            return
        folder = self.folder / f"job-{index}"
        folder.mkdir(exist_ok=True)
        chosen = [cell for cell in job.cells if cell in wanted]
        for cell in chosen:
            self._write(cell, BEGUN)
        self._recorded.clear()
        if isinstance(job, Chain):
            self.record(*chosen, partial(self._links, job, folder))
            return
        with contextlib.nullcontext() if alone else self._group(folder / "store", self.world):
            if not self._is_done(job, chosen, folder):
                # Connections end with what holds them, and so does the waiting for this rank.
                gc.collect()

    def _is_done(self, job: Job, chosen: list[str], folder: Path) -> bool:
        """All cells; where something failed before, they say that."""
        try:
            going_on.go(job, chosen, folder, self.seed, self.record)
            return True
        except ERRORS:
            failure = traceback.format_exc(limit=DEEPEST)
        for cell in [cell for cell in chosen if cell not in self._recorded]:
            self._write(cell, failure)
        return False

    def _links(self, chain: Chain, folder: Path) -> None:
        """Each number of ranks, one after the other."""
        for index, count in enumerate(chain.worlds):
            self._meet(folder, index)
            if self.rank < count:
                with self._group(folder / f"store-{index}", count):
                    try:
                        resharding.stage(chain, index, folder, self.seed)
                        distributed.barrier()
                    except ERRORS:
                        (folder / FAILED).touch()
                        raise

    def _meet(self, folder: Path, index: int) -> None:
        """All ranks of the launch are here, also those that have had nothing to do."""
        (folder / f"here-{index}-{self.rank}").touch()
        ends = time.monotonic() + WAIT.total_seconds()
        while len(list(folder.glob(f"here-{index}-*"))) < self.world:
            if (folder / FAILED).exists() or time.monotonic() > ends:
                raise Apart("another rank failed")
            time.sleep(0.01)

    @contextlib.contextmanager
    def _group(self, file: Path, count: int) -> Iterator[None]:
        store = distributed.FileStore(str(file), count)
        distributed.init_process_group(
            "gloo", store=store, rank=self.rank, world_size=count, timeout=WAIT
        )
        try:
            yield
        finally:
            distributed.destroy_process_group()


def main(folder: Path, rank: int, world: int, seed: int, limit: float) -> None:
    """All jobs."""
    faulthandler.dump_traceback_later(limit, exit=True)
    torch.set_num_threads(1)
    wanted = set(json.loads((folder / "cells.json").read_text()))
    place = Rank(folder, rank, world, seed)
    jobs = (*cells.ALL, *chains.ALL)
    for index, job in enumerate(job for job in jobs if wanted & set(job.cells)):
        started = time.process_time()
        place.go(index, job, wanted)
        print(f"{job.name}: {time.process_time() - started:.3f} CPU seconds", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:5]), limit=float(sys.argv[5]))

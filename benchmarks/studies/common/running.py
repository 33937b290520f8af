"""Runs studies in processes of their own, one thread each."""

import json
import multiprocessing
import os
import resource
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass

import torch

from .statistics import Statement
from .study import Result, Study

THREADS = 1  # of each study


@dataclass(frozen=True)
class Task:
    name: str
    seeds: tuple[int, ...]
    device: str


@dataclass(frozen=True)
class Done:
    task: Task
    result: Result
    statements: list[Statement]
    seconds: float  # of CPU, with those of the processes that the study started


def run_one(task: Task) -> Done:
    """A study, measured and checked, in this process.

    Raises:
        ValueError: the result is not plain finite numbers, as after a divergence that a study
            did not expect.
    """
    before = _cpu_seconds()
    study = Study(task.name)
    result = study.module.run(list(task.seeds), torch.device(task.device))
    json.dumps(result, allow_nan=False)
    return Done(task, result, study.check(result), _cpu_seconds() - before)


def run_all(tasks: Sequence[Task], jobs: int) -> Iterator[tuple[Task, Done | BaseException]]:
    """All studies as they are finished; one that raised does not stop the others.

    The pool is one whose workers may start processes, as a study with several ranks does.
    """
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, spawning, initializer=_begin) as pool:
        waiting: dict[Future[Done], Task] = {pool.submit(run_one, task): task for task in tasks}
        try:
            while waiting:
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    task = waiting.pop(future)
                    yield task, future.exception() or future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """In each worker: one thread, and an end without a word by Ctrl-C or with the main process."""
    torch.set_num_threads(THREADS)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # else a job in the background
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # the pool's own threads would wait for its queue for ever


def _cpu_seconds() -> float:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, kinds))

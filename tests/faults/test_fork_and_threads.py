"""Forked children, changing thread counts, several Python threads: always the same bits."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lib.optimizers import Kind

import lrfused
from lrfused import schedules as S

from .helpers import accepting, assert_same_state, everything, needs_cpp, normal

pytestmark = needs_cpp
STEPS = 4
SHAPES = [(300, 401), (7,), (66_000,)]  # several chunks: work for several threads


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize(
    "pool", ["both", *(pytest.param(name, marks=pytest.mark.slow) for name in ("lrfused", "torch"))]
)
def test_forked_children_step_with_the_same_bits(pool):
    """After parallel work of the parent, by lrfused, torch or both: see forking.py."""
    script = Path(__file__).with_name("forking.py")
    paths = [str(Path(lrfused.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, script, pool]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert ran.returncode == 0, ran.stdout + ran.stderr


class Job:
    """An optimizer, fresh random gradients, and the steps over them."""

    def __init__(self, seed: int, kind: Kind):
        self.generator = torch.Generator().manual_seed(seed)
        dtypes = (torch.float32, torch.float64, torch.bfloat16)
        self.params = [
            accepting(normal(self.generator, s, d)) for s, d in zip(SHAPES, dtypes, strict=True)
        ]
        self.opt = kind.ours(
            self.params, lr=S.warmup_cosine(0.01, 2, 10), max_grad_norm=1.0, loss_scale="dynamic"
        )

    def step(self) -> None:
        """One step with new gradients."""
        for p in self.params:
            p.grad = normal(self.generator, tuple(p.shape), p.dtype)
        self.opt.scale(torch.zeros(()))
        self.opt.step()

    def run(self, threads: int) -> None:
        """All steps; torch counts threads apart for each Python thread."""
        torch.set_num_threads(threads)
        for _ in range(STEPS):
            self.step()

    def end(self):
        """Everything that the steps left."""
        return everything(self.params, self.opt)


def one_after_the_other(kind: Kind, seeds: list[int]) -> list[dict]:
    """The same jobs without other threads."""
    jobs = [Job(seed, kind) for seed in seeds]
    for job in jobs:
        job.run(1)
    return [job.end() for job in jobs]


def at_once(*functions: Callable[[], None]) -> None:
    """Call the functions in threads of their own that start together."""
    barrier, errors = threading.Barrier(len(functions)), []

    def call(function: Callable[[], None]) -> None:
        barrier.wait()
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=call, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]


@pytest.fixture
def seeds(rng) -> list[int]:
    """Of two jobs."""
    return rng.numpy.integers(2**31, size=2).tolist()


def test_the_number_of_threads_may_change_between_steps(seeds, kind):
    """torch.set_num_threads takes effect at the next step and changes no bit."""
    job = Job(seeds[0], kind)
    for threads in (2, 1, 5, 3):
        torch.set_num_threads(threads)
        job.step()
    assert_same_state(job.end(), one_after_the_other(kind, seeds[:1])[0])


@pytest.mark.parametrize("threads", [(1, 1), (2, 2), (3, 1)])
def test_two_optimizers_in_two_threads_step_as_alone(seeds, kind, threads):
    """Two optimizers that step at the same time do what they do alone."""
    jobs = [Job(seed, kind) for seed in seeds]
    at_once(*(lambda j=j, n=n: j.run(n) for j, n in zip(jobs, threads, strict=True)))
    for job, want in zip(jobs, one_after_the_other(kind, seeds), strict=True):
        assert_same_state(job.end(), want)


def test_two_optimizers_step_as_alone_while_torch_uses_its_threads(seeds, kind):
    """The same while a third thread keeps torch's own pool busy."""
    jobs, ended = [Job(seed, kind) for seed in seeds], threading.Event()

    def keep_busy() -> None:
        torch.set_num_threads(2)
        x = torch.ones(10**6)
        while not ended.is_set():
            x = (x * 1.5).sin_() @ x + x

    def work() -> None:
        try:
            at_once(lambda: jobs[0].run(2), lambda: jobs[1].run(2))
        finally:
            ended.set()

    at_once(work, keep_busy)
    for job, want in zip(jobs, one_after_the_other(kind, seeds), strict=True):
        assert_same_state(job.end(), want)


def test_two_threads_may_take_turns_with_one_optimizer(seeds, kind):
    """Steps from whichever thread holds the lock."""
    job, lock, left = Job(seeds[0], kind), threading.Lock(), [None] * STEPS

    def take_steps() -> None:
        torch.set_num_threads(2)
        while True:
            with lock:
                if not left:
                    return
                left.pop()
                job.step()

    at_once(take_steps, take_steps)
    assert_same_state(job.end(), one_after_the_other(kind, seeds[:1])[0])

"""Run by test_fork_and_threads.py: python forking.py POOL. Steps in the children of a fork.

POOL says whose parallel work the parent has done before it forks: "lrfused", "torch" or "both".
Ends with 0 if parent, children and grandchild all come to the same bits within ten seconds.
"""

import os
import signal
import sys

import torch

import lrfused

SIZE = 200_000  # enough for several threads


def digest(p: torch.nn.Parameter, opt: lrfused.AdamW) -> bytes:
    """The bytes of parameter and state."""
    tensors = [p.detach(), *opt.state[p].values()]
    return b"".join(tensor.numpy().tobytes() for tensor in tensors)


def forked(function) -> None:
    """Call a function in a child that has ten seconds; raise unless it returned."""
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        code = 1
        try:
            function()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
        raise SystemExit("a step in a forked child hangs")
    if status:
        raise SystemExit(f"a forked child ended with status {status}")


def start(gradient: torch.Tensor, threads: int) -> tuple[torch.nn.Parameter, lrfused.AdamW]:
    """A parameter and its optimizer after one step."""
    torch.set_num_threads(threads)
    p = torch.nn.Parameter(torch.zeros(SIZE))
    p.grad = gradient.clone()
    opt = lrfused.AdamW([p], max_grad_norm=1.0, backend="cpu")
    opt.step()
    return p, opt


def main(pool: str) -> None:
    """Fork after a step; step in the child, in its child, in a second child, in the parent."""
    gradient = torch.randn(SIZE)
    p, opt = start(gradient, threads=1)
    expected = []
    for _ in range(2):
        opt.step()
        expected.append(digest(p, opt))
    p, opt = start(gradient, threads=1 if pool == "torch" else 2)
    torch.set_num_threads(2)
    if pool in ("torch", "both"):
        torch.ones(10**7).exp_()

    def step(number: int) -> None:
        opt.step()
        if digest(p, opt) != expected[number]:
            raise SystemExit("a step has other bits")

    def child() -> None:
        step(0)
        forked(lambda: step(1))
        step(1)

    forked(child)
    forked(child)
    child()


if __name__ == "__main__":
    main(sys.argv[1])

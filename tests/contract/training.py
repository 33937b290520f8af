"""A small training run: python training.py FOLDER STEPS KIND BACKEND SAVE_AT.

Resumes from FOLDER/checkpoint.pt if it is there; with SAVE_AT > 0 it saves a checkpoint after so
many steps, takes three more steps and kills itself, as a lost machine would. At the end writes
FOLDER/end.pt.
"""

import os
import signal
import sys
from pathlib import Path

import lib.interpreting  # noqa: F401 (makes it quick)
import torch
from lib import emulating
from lib.optimizers import named

import lrfused
from lrfused import schedules


def main(folder: Path, steps: int, name: str, backend: str, save_at: int) -> None:
    """Train, and perhaps die."""
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    warmup = schedules.warmup_cosine(0.05, warmup_steps=15, total_steps=40)
    temperature = torch.tensor(1.0)
    kind = named(name)
    scheduled = {**kind.scheduled, "weight_decay": 0.1 * warmup / 0.05}
    opt = kind.ours(
        model.parameters(),
        lr=warmup * schedules.input(temperature, "temperature"),
        **scheduled,
        **kind.carrying,
        max_grad_norm=0.5,
        loss_scale=lrfused.LossScale(init=2.0**100, growth_interval=4),
        backend=backend,
    )
    start, checkpoint = 0, folder / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        start = saved["step"]
        model.load_state_dict(saved["model"])
        opt.load_state_dict(saved["optimizer"])
    for step in range(start, steps):
        data = torch.Generator().manual_seed(step)
        x = torch.randn(32, 6, generator=data)
        # Too large for float32 now and then, so that the loss scale moves.
        weight = 1e30 if step % 5 == 1 else 1.0
        if step == 4:
            temperature.fill_(0.7)  # never again: only the checkpoint can bring it back
        opt.zero_grad()
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean() * weight
        opt.scale(loss).backward()
        opt.step()
        if step + 1 == save_at:
            torch.save(
                {
                    "step": step + 1,
                    "model": model.state_dict(),
                    "optimizer": opt.state_dict(),
                },
                checkpoint,
            )
        if save_at and step + 1 == save_at + 3:
            os.kill(os.getpid(), signal.SIGKILL)
    end = {
        "resumed_from": start,
        "model": model.state_dict(),
        "optimizer": opt.state_dict(),
        "metrics": opt.metrics(),
    }
    torch.save(end, folder / "end.pt")


if __name__ == "__main__":
    emulating.inherit()
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]))

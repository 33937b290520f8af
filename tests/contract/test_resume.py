"""A run that was killed in mid-warmup goes on as if nothing had happened."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import torch

from . import training

TRAIN = Path(training.__file__)


def train(folder, steps, kind, backend, save_at=0):
    """Run training.py in a process of its own until it ends or kills itself."""
    command = [
        sys.executable,
        str(TRAIN),
        str(folder),
        str(steps),
        kind.name,
        backend,
        str(save_at),
    ]
    places = [str(TRAIN.parents[2]), str(TRAIN.parents[1]), os.environ.get("PYTHONPATH")]
    path = os.pathsep.join(filter(None, places))
    return subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, timeout=300
    )


def test_a_killed_run_resumes_bit_equal(tmp_path, kind, backend):
    """A training process is killed (SIGKILL) in mid-warmup; another resumes from its checkpoint:
    weights, moments, counts, loss scale, lr and metrics are those of the uninterrupted run."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    training.main(whole, 24, kind.name, backend, save_at=0)
    assert train(broken, 24, kind, backend, save_at=9).returncode == -signal.SIGKILL
    assert not (broken / "end.pt").exists()
    result = train(broken, 24, kind, backend)
    assert result.returncode == 0, result.stderr.decode()
    a, b = (torch.load(f / "end.pt", weights_only=True) for f in (whole, broken))
    assert a.pop("resumed_from") == 0 and b.pop("resumed_from") == 9
    assert flat(a) == flat(b)


def flat(value):
    """Nested data with tensors turned into bytes, so that == compares every bit."""
    if isinstance(value, torch.Tensor):
        return (
            value.dtype,
            tuple(value.shape),
            value.contiguous().view(-1).view(torch.uint8).tolist(),
        )
    if isinstance(value, dict):
        return {k: flat(v) for k, v in value.items()}
    return [flat(v) for v in value] if isinstance(value, (list, tuple)) else value

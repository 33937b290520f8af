"""A command with a limit of time, its output in a log."""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import processes

TAIL = 4000  # characters of an output that are kept


@dataclass(frozen=True)
class Done:
    """What became of it: the exit status (None: its time was over), the end of what it printed."""

    status: int | None
    output: str
    seconds: float


def run(
    command: Sequence[str | Path],
    cwd: Path,
    seconds: float,
    log: Path,
    variables: Mapping[str, str],
) -> Done:
    """Run it to its end, or end it and what it started when its time is over."""
    started = time.monotonic()
    with log.open("ab") as output:
        output.write(f"\n$ {' '.join(map(str, command))}\n".encode())
        output.flush()
        begin = output.tell()
        process = subprocess.Popen(
            list(map(str, command)),
            cwd=cwd,
            env=dict(variables),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        status = processes.wait(process, seconds)
    text = log.read_bytes()[begin:].decode(errors="replace")
    return Done(status, text[-TAIL:], round(time.monotonic() - started, 1))

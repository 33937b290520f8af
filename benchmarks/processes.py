"""Processes with a limit of time."""

import os
import signal
import subprocess


def wait(process: "subprocess.Popen[bytes]", seconds: float) -> int | None:
    """The exit status; None if its time was over. Then, or when ours is, it and what it started
    end: it has to lead a session of its own.
    """
    try:
        return process.wait(seconds)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        return None

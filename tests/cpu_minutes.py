"""Runs a command and says what it cost: python tests/cpu_minutes.py NAME LIMIT COMMAND...

The seconds of user and system that the command and everything it waited for took, in minutes; more
than LIMIT is said, and is no failure: other work on a machine changes these numbers, too.
"""

import resource
import signal
import subprocess
import sys


def main(name: str, limit: str, *command: str) -> int:
    process = subprocess.Popen(command)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the command's to answer
    status = process.wait()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    minutes = (used.ru_utime + used.ru_stime) / 60
    over = f", more than the {limit} it may take" if minutes > float(limit) else ""
    print(f"{name}: {minutes:.1f} CPU minutes (user + system){over}", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""Finishing what must not stay half done, although the user presses Ctrl-C."""

from collections.abc import Callable


def uninterrupted(action: Callable[[], None]) -> None:
    """Run an idempotent action; after a keyboard interrupt run it again, then raise that."""
    waiting = None
    while True:
        try:
            action()
            break
        except KeyboardInterrupt as interrupt:
            waiting = interrupt
    if waiting is not None:
        raise waiting

"""Changes memory of which a keyboard interrupt may not leave a half."""

from collections.abc import Callable


def uninterrupted(action: Callable[[], None]) -> None:
    """Run an action; after a keyboard interrupt run it again, and raise the interrupt at the end.

    The action must lead to the same end however often it was begun before.
    """
    waiting = None
    while True:
        try:
            action()
            break
        except KeyboardInterrupt as interrupt:
            waiting = interrupt
    if waiting is not None:
        raise waiting

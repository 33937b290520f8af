"""A step in a capture."""

from lib.late_device import NothingWaits


def capture(queue, opt):
    """A step that is captured; that nothing is done by it is the posing GPU's affair."""
    queue.capturing = True
    try:
        with NothingWaits():
            opt.step()
    finally:
        queue.capturing = False

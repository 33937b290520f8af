# mypy: ignore-errors
"""Who finishes last: programs draw tickets when they have stored what they have to say."""

import triton
import triton.language as tl


@triton.jit
def is_last(ticket, programs):
    """The other programs have finished, and what they stored can be read.

    The barrier puts all of this program's stores before the ticket, which releases them to the
    whole device; who draws the last one acquires everybody's, and its second barrier hands that
    on to all of its threads. The last ticket is 0 again for the next step.
    """
    tl.debug_barrier()
    drawn = tl.atomic_add(ticket, 1, sem="acq_rel", scope="gpu")
    last = drawn == programs - 1
    if last:
        tl.store(ticket, 0)
    tl.debug_barrier()
    return last

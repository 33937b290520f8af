"""How a tensor of four dimensions may lie in memory."""

import torch


def inside(value, index):
    """The same values as a view into larger memory."""
    base = torch.full([2 * n + 3 for n in value.shape], 7.0, dtype=value.dtype)
    view = base[index]
    view.copy_(value)
    return view


LAYOUTS = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.transpose(0, 3).contiguous().transpose(0, 3),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "every other": lambda x: inside(x, tuple(slice(0, 2 * n, 2) for n in x.shape)),
    "slice": lambda x: inside(x, tuple(slice(1, 1 + n) for n in x.shape)),
    "misaligned": lambda x: torch.cat([x.new_zeros(1), x.reshape(-1)])[1:].view(x.shape),
}

"""Whether a CUDA graph is being captured: then nothing may be asked of the device."""

import torch


def is_capturing(device: torch.device) -> bool:
    """The current stream of the device records a graph."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()

"""Whether a CUDA graph is being captured: then nothing may query or wait for the device."""

import torch


def is_capturing(device: torch.device) -> bool:
    """Whether a CUDA graph is being captured on the device's current stream."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()

"""The GPUs of this machine."""

import torch


def gpus() -> list[torch.device]:
    """The GPUs that torch sees."""
    return [
        torch.device(kind, index)
        for kind, module in (("cuda", torch.cuda), ("xpu", torch.xpu))
        if module.is_available()
        for index in range(module.device_count())
    ]


def described_gpus() -> str:
    """Their names, or that there is none."""
    return ", ".join(map(str, gpus())) or "no GPU is seen"

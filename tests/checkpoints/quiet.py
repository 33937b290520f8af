"""Warnings of torch.distributed's own, which say nothing about an optimizer."""

import warnings
from collections.abc import Iterable
from typing import Any

# (category, beginning of the message)
TORCHS_OWN = (
    (UserWarning, "Multiple backends are registered with this ProcessGroup"),
    (UserWarning, "`_get_pg_default_device` will be deprecated"),
    (UserWarning, "torch.distributed is disabled, unavailable or uninitialized"),
    (UserWarning, "TypedStorage is deprecated"),  # torch 2.8
    (FutureWarning, "Please use DTensor instead and we are deprecating ShardedTensor"),
    (FutureWarning, "FSDP.state_dict_type() and FSDP.set_state_dict_type() are being deprecated"),
)


def others(caught: Iterable[warnings.WarningMessage]) -> list[str]:
    """The messages of those that are not torch's own."""
    return [
        f"{warning.category.__name__}: {warning.message}"
        for warning in caught
        if not any(
            issubclass(warning.category, category) and str(warning.message).startswith(text)
            for category, text in TORCHS_OWN
        )
    ]


def import_zero() -> Any:
    """ZeroRedundancyOptimizer, beside which torch compiles scripts in a deprecated way."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.script", DeprecationWarning)
        from torch.distributed.optim import ZeroRedundancyOptimizer
    return ZeroRedundancyOptimizer

"""DTensor: a step works on the memory that this rank holds."""

from typing import Any

from torch import Tensor


def is_distributed(tensor: Any) -> bool:
    """A DTensor; told by name, since importing its module takes long and few use it."""
    kind = type(tensor)
    return kind.__name__ == "DTensor" and kind.__module__.startswith("torch.distributed")


def local(tensor: Tensor) -> Tensor:
    """What this rank holds of a DTensor; any other tensor itself."""
    return tensor._local_tensor if is_distributed(tensor) else tensor  # type: ignore[attr-defined]


def check_is_whole(param: Any) -> None:
    """Refuse a parameter of which other ranks hold a part, where all gradients must be known.

    Raises:
        ValueError: the parameter is spread over several ranks.
    """
    if is_distributed(param) and param.device_mesh.size() > 1:
        raise ValueError(
            f"params: a DTensor of shape {tuple(param.shape)} is spread over "
            f"{param.device_mesh.size()} ranks; max_grad_norm, agc, loss_scale, nonfinite and "
            "always_measure need every rank's gradients, which is not supported"
        )

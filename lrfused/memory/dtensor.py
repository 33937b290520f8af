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


def placing(tensor: Any) -> tuple[Any, Any]:
    """How a DTensor is spread over ranks."""
    return tensor.device_mesh, tensor.placements


def check_is_whole(param: Any, sharded: bool | None) -> None:
    """Refuse a parameter of which other ranks hold a part, where all gradients must be known.

    ``sharded`` is the caller's word on it; a DTensor knows by itself.

    Raises:
        ValueError: the parameter is spread over several ranks.
    """
    what = f"params: a {type(param).__name__} of shape {tuple(param.shape)}"
    if is_distributed(param):
        if param.device_mesh.size() > 1:
            ranks = param.device_mesh.size()
            raise ValueError(f"{what} is spread over {ranks} ranks; {NEEDED}")
    elif sharded:
        raise ValueError(f"{what} is spread over several ranks (sharded=True); {NEEDED}")
    elif sharded is None and getattr(param, "_fsdp_flattened", False):
        raise ValueError(
            f"{what} was flattened by FullyShardedDataParallel; {NEEDED}; where every rank has all "
            "of it (NO_SHARD, or one rank) say so with sharded=False"
        )


NEEDED = (
    "max_grad_norm, agc, loss_scale, nonfinite and always_measure need every rank's gradients, "
    "which is not supported"
)

"""DTensor: a step works on this rank's local tensor."""

from typing import Any

from torch import Tensor


def is_distributed(tensor: Any) -> bool:
    """True for a DTensor; recognized by name, since importing its module is slow."""
    kind = type(tensor)
    return kind.__name__ == "DTensor" and kind.__module__.startswith("torch.distributed")


def local(tensor: Tensor) -> Tensor:
    """The local tensor of a DTensor; any other tensor itself."""
    return tensor._local_tensor if is_distributed(tensor) else tensor  # type: ignore[attr-defined]


def as_local_of(param: Any, tensor: Tensor) -> Tensor:
    """A tensor for this rank's part of a parameter: a DTensor if the parameter is one."""
    if not is_distributed(param):
        return tensor
    made: Tensor = type(param).from_local(
        tensor,
        *placing(param),
        run_check=False,
        shape=param.shape,
        stride=param.stride(),
    )
    return made


def is_flattened(param: Any) -> bool:
    """True for a parameter that FullyShardedDataParallel (FSDP1) flattened."""
    return bool(getattr(param, "_fsdp_flattened", False))


def placing(tensor: Any) -> tuple[Any, Any]:
    """The mesh and placements of a DTensor."""
    return tensor.device_mesh, tensor.placements


def check_is_whole(param: Any, sharded: bool | None) -> None:
    """Refuse a sharded parameter where all gradients must be known.

    ``sharded`` is the caller's statement; a DTensor is judged by its mesh.

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
    elif sharded is None and is_flattened(param):
        raise ValueError(
            f"{what} was flattened by FullyShardedDataParallel; {NEEDED}; where every rank has all "
            "of it (NO_SHARD, or one rank) say so with sharded=False"
        )


NEEDED = (
    "max_grad_norm, agc, loss_scale, nonfinite and always_measure need every rank's gradients, "
    "which is not supported"
)

"""A model as a chain of linear layers and activations, by its statistics and not by its data."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lrfused.schedules.check import finite, whole


class Activation(NamedTuple):
    """What is known of a function phi for every argument z, and for pairs z, -z on average."""

    slope: float = 1.0  # |phi'| is at most
    bend: float = 0.0  # |phi''| is at most (where it exists)
    square_slope: float = 1.0  # phi'**2 is on average at most
    gain: float = 1.0  # phi**2 is on average at most gain * z**2 + offset
    offset: float = 0.0


class Layer(NamedTuple):
    """A Linear or convolution z = W a + b followed by an activation; a, z of one sample."""

    variance: float  # mean square of the elements of W
    bias_variance: float  # the same of b; 0 without
    fan_in: int  # inputs of one output
    fan_out: int  # most outputs that see one input, over the windows that contain it
    channels: int  # outputs that have weights of their own and share their inputs
    overlap: int  # most windows that contain one input; 1 for Linear
    copies: int  # elements of z that each bias is added to (positions); 0 without bias
    outputs: int  # elements of z
    activation: Activation


# Largest |phi'| of GELU is at z = sqrt(2), of SiLU at 2.3994; both have phi'(z) + phi'(-z) = 1 and
# |phi(z)|**2 + |phi(-z)|**2 <= z**2.
_GELU_SLOPE = 0.5 * (1.0 + math.erf(1.0)) + math.exp(-1.0) / math.sqrt(math.pi)
_SILU_SLOPE = 1.0998393194
ACTIVATIONS: dict[type[nn.Module], Activation] = {
    nn.Identity: Activation(),
    nn.ReLU: Activation(square_slope=0.5, gain=0.5),
    nn.Tanh: Activation(bend=4.0 / math.sqrt(27.0)),
    nn.Sigmoid: Activation(0.25, 1.0 / math.sqrt(108.0), 1.0 / 16.0, 1.0 / 16.0, 0.25),
    nn.GELU: Activation(
        _GELU_SLOPE, 2.0 / math.sqrt(2.0 * math.pi), 0.5 + _GELU_SLOPE * (_GELU_SLOPE - 1.0), 0.5
    ),
    nn.SiLU: Activation(_SILU_SLOPE, 0.5, 0.5 + _SILU_SLOPE * (_SILU_SLOPE - 1.0), 0.5),
}
AFFINE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
KNOWN = (
    "Linear, Conv1d, Conv2d, Conv3d, Flatten, Identity, ReLU, LeakyReLU, Tanh, Sigmoid, GELU, "
    "SiLU, Dropout in eval mode"
)


def chain_of(model: nn.Module, input_shape: tuple[int, ...] | None) -> tuple[int, list[Layer]]:
    """The number of elements of an input, and the layers in their order.

    Raises:
        TypeError: a module is not one of those that are known.
        ValueError: the modules do not form a chain that begins with a linear layer.
    """
    modules = list(_flat("model", model))
    for name, module in modules:
        _expect_known(name, module)
    shape = _input_shape(modules, input_shape)
    inputs = math.prod(shape)
    layers: list[Layer] = []
    is_bare = False  # the last layer has no activation yet
    seen: dict[int, str] = {}
    for name, module in modules:
        if isinstance(module, AFFINE) and type(module) in AFFINE:
            if id(module) in seen:
                raise ValueError(f"{name}: must be a module of its own, but is {seen[id(module)]}")
            seen[id(module)] = name
            shape, layer = _layer(name, module, shape)
            layers.append(layer)
            is_bare = True
        elif type(module) is nn.Flatten:
            batch = torch.empty(1, *shape, device="meta")
            shape = tuple(batch.flatten(module.start_dim, module.end_dim).shape[1:])
        else:
            if not is_bare:
                raise ValueError(f"{name}: an activation must follow a Linear or a convolution")
            layers[-1] = layers[-1]._replace(activation=_activation(module))
            is_bare = False
    if not layers:
        raise ValueError("model: must contain a Linear or a convolution")
    return inputs, layers


def _flat(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    if type(module) is nn.Sequential:
        for i, child in enumerate(module):
            yield from _flat(f"{name}[{i}]", child)
    elif type(module) is not nn.Identity and not (
        type(module) is nn.Dropout and not module.training
    ):
        yield name, module


def _input_shape(
    modules: list[tuple[str, nn.Module]], given: tuple[int, ...] | None
) -> tuple[int, ...]:
    if given is not None:
        sizes = given if isinstance(given, (tuple, list)) else (given,)
        return tuple(whole(f"input_shape[{i}]", n, minimum=1) for i, n in enumerate(sizes))
    for _, module in modules:
        if type(module) is nn.Linear:
            return (module.in_features,)
        if type(module) in AFFINE:
            break
    raise ValueError("input_shape: must be given where the first layer is no Linear, got None")


def _layer(
    name: str, module: nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d, shape: tuple[int, ...]
) -> tuple[tuple[int, ...], Layer]:
    """The shape of z, and the layer that computes it from an a of a shape, without activation."""
    if isinstance(module, nn.Linear):
        if not shape or shape[-1] != module.in_features:
            raise ValueError(f"{name}: its input must end in {module.in_features}, got {shape}")
        out_shape = (*shape[:-1], module.out_features)
        channels, overlap, positions = module.out_features, 1, math.prod(shape[:-1])
    else:
        out_shape = _convolved(name, module, shape)
        channels, positions = module.out_channels // module.groups, math.prod(out_shape[1:])
        overlap = math.prod(
            min(math.ceil(k * math.gcd(d, s) / s), n)
            for k, d, s, n in zip(
                module.kernel_size, module.dilation, module.stride, out_shape[1:], strict=True
            )
        )
    return out_shape, Layer(
        variance=_mean_square(f"{name}.weight", module.weight),
        bias_variance=0.0 if module.bias is None else _mean_square(f"{name}.bias", module.bias),
        fan_in=module.weight[0].numel(),
        fan_out=channels * overlap,
        channels=channels,
        overlap=overlap,
        copies=0 if module.bias is None else positions,
        outputs=math.prod(out_shape),
        activation=ACTIVATIONS[nn.Identity],
    )


def _convolved(
    name: str, module: nn.Conv1d | nn.Conv2d | nn.Conv3d, shape: tuple[int, ...]
) -> tuple[int, ...]:
    if module.padding_mode != "zeros":
        raise ValueError(f"{name}: padding_mode must be 'zeros', got {module.padding_mode!r}")
    if len(shape) != 1 + len(module.kernel_size) or shape[0] != module.in_channels:
        raise ValueError(
            f"{name}: its input must be {module.in_channels} channels and "
            f"{len(module.kernel_size)} dimensions, got {shape}"
        )
    if module.padding == "same":
        return (module.out_channels, *shape[1:])
    padding = (0,) * len(shape[1:]) if isinstance(module.padding, str) else module.padding
    sizes = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(
            shape[1:], padding, module.dilation, module.kernel_size, module.stride, strict=True
        )
    ]
    if min(sizes) < 1:
        raise ValueError(f"{name}: its input must be as large as its kernel, got {shape}")
    return (module.out_channels, *sizes)


def _mean_square(name: str, tensor: Tensor) -> float:
    if tensor.is_meta or tensor.numel() == 0:
        raise ValueError(f"{name}: must have values, got {tuple(tensor.shape)} on {tensor.device}")
    value = tensor.detach().double().square().mean().item()
    return finite(f"mean square of {name}", value)


def _expect_known(name: str, module: nn.Module) -> None:
    if type(module) not in (*AFFINE, *ACTIVATIONS, nn.Flatten, nn.LeakyReLU):
        raise TypeError(
            f"{name}: must be one of {KNOWN} in a Sequential, got {type(module).__name__}"
        )


def _activation(module: nn.Module) -> Activation:
    if type(module) is nn.LeakyReLU:
        low = module.negative_slope
        mean = 0.5 * (1.0 + low * low)
        return Activation(max(1.0, abs(low)), 0.0, mean, mean)
    return ACTIVATIONS[type(module)]

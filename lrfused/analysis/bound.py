"""An upper estimate of the Hessian's largest eigenvalue at initialisation, from its statistics."""

import math

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lrfused.analysis.chain import Layer, chain_of
from lrfused.schedules.check import nonnegative


def hessian_bound(
    model: nn.Module,
    input_shape: tuple[int, ...] | None = None,
    *,
    input_moment: float = 1.0,
    loss_curvature: float = 0.5,
    loss_slope: float = math.sqrt(2.0),
) -> float:
    """An upper estimate of the Hessian's largest eigenvalue at initialisation, without data.

    The loss is the mean over samples of loss(f(x), y), f a chain of layers. Of each layer only the
    fans and the root mean square of the weights are used, the numbers that Xavier's and Kaiming's
    initialisations choose: gain**2 / fan_in, and so on. The model is not run.

    Formula:
        layers z_l = W_l a_(l-1) + b_l, a_l = phi_l(z_l), f = a_L; sigma_l, beta_l = root mean
        squares of W_l, b_l; n_l = size of z_l; Linear: fan_out = channels = n_l, overlap = 1,
        positions = 1 (0 without bias); convolutions: overlap = windows that contain an input,
        fan_out = channels * overlap
        |a_0|**2      = input_moment * size of x
        |a_l|**2      = gain_l (fan_out_l sigma_l**2 |a_(l-1)|**2 + n_l beta_l**2) + offset_l n_l
        |W_l|         = sigma_l sqrt(overlap_l) (sqrt(channels_l) + sqrt(fan_in_l))
        |dz_h/dz_l|   = min(|W_h| max|phi'_(h-1)| |dz_(h-1)/dz_l|, its root mean square Frobenius
                        norm sqrt(n_l * product of fan_out_k sigma_k**2 mean(phi'_(k-1)**2),
                        k = l+1 to h))
        u_l           = sqrt(overlap_l |a_(l-1)|**2 + positions_l)         |dz_l / d(W_l, b_l)|
        M_lm          = loss_curvature * |df/dz_l| |df/dz_m| u_l u_m       Gauss-Newton part
                      + loss_slope * |df/dz_m| sqrt(overlap_m) |da_(m-1)/dz_l| u_l     (l < m)
                      + loss_slope * sum over h >= m of
                            max|phi''_h| g_h |dz_h/dz_l| |dz_h/dz_m| u_l u_m           (l <= m)
        g_h           = |df/dz_(h+1)| sigma_(h+1) sqrt(2 log(2 n_h)) (the last: 1), the largest
                        element of df/da_h
        bound         = the largest eigenvalue of M (one row for each layer)

    M_lm bounds the norm of the Hessian's block of layers l and m, all its terms included, so the
    result bounds the largest eigenvalue if the norms are what the formula says. They are typical
    values for independent weights with mean 0, whose fluctuations fall with the width: this is an
    estimate at initialisation, since training gives the weights other norms. It is loose, by orders
    of magnitude in a deep model with curved activations, as products are bounded factor by factor.

    Args:
        model: Linear or Conv1d to Conv3d, or a Sequential (nested, too) of these, Flatten,
            Identity, ReLU, LeakyReLU, Tanh, Sigmoid, GELU, SiLU, and Dropout in eval mode.
        input_shape: of one sample; default (in_features,) of a first Linear.
        input_moment: mean of the squared elements of the inputs, >= 0 (1: standardised).
        loss_curvature: largest eigenvalue of the second derivative of a sample's loss by f, >= 0.
            Default: cross-entropy's, 1/2 (1/k where all k probabilities are equal). Mean squared
            error over k outputs: 2 / k.
        loss_slope: largest norm of the first derivative, >= 0. Default: cross-entropy's, sqrt(2).
            Mean squared error over k outputs: the largest 2 |f - y| / k.

    Raises:
        TypeError: an argument is of the wrong type, or the model has another module.
        ValueError: an argument is out of its range, the modules are no chain or do not fit the
            shape, or weights are not finite.

    Example:
        >>> import torch
        >>> from lrfused import analysis
        >>> layer = torch.nn.Linear(3, 1)
        >>> analysis.hessian_bound(layer, loss_curvature=2.0)  # 2 (|x|**2 + 1)
        8.0

    Source: Glorot and Bengio, 2010; He et al., arXiv 1502.01852, section 2.2 (second moments);
    Davidson and Szarek, 2001, theorem 2.13 (norm of a random matrix).
    """
    moment = nonnegative("input_moment", input_moment)
    curvature = nonnegative("loss_curvature", loss_curvature)
    slope = nonnegative("loss_slope", loss_slope)
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: must be a torch.nn.Module, got {type(model).__name__}")
    inputs, layers = chain_of(model, input_shape)
    with np.errstate(over="ignore", invalid="ignore"):
        blocks = _blocks(layers, moment * inputs, curvature, slope)
    if not np.isfinite(blocks).all():
        raise ValueError("model: its bound must be finite, but its weights are too large")
    return float(np.linalg.eigvalsh(blocks)[-1])


def _blocks(
    layers: list[Layer], inputs: float, curvature: float, slope: float
) -> NDArray[np.float64]:
    """M: bounds of the norms of the Hessian's blocks."""
    last = layers[-1].activation.slope
    jacobians = _jacobians(layers)
    through = last * jacobians[:, -1]  # |df/dz|
    # The largest element of df/da_h, as the largest of so many normal variables; f is the last a.
    largest = [
        math.sqrt(2.0 * math.log(2.0 * layer.outputs) * following.variance) * t
        for layer, following, t in zip(layers[:-1], layers[1:], through[1:], strict=True)
    ] + [1.0]
    bends = [layer.activation.bend * a for layer, a in zip(layers, largest, strict=True)]
    blocks = curvature * np.outer(through, through) + slope * (jacobians * bends) @ jacobians.T
    own = np.sqrt(_squares(layers, inputs))
    blocks *= np.outer(own, own)
    for m, layer in enumerate(layers[1:], start=1):
        before = layers[m - 1].activation.slope * jacobians[:m, m - 1]  # |da_(m-1)/dz|
        crossed = slope * through[m] * math.sqrt(layer.overlap) * before * own[:m]
        blocks[:m, m] += crossed
        blocks[m, :m] += crossed
    return blocks


def _norm(layer: Layer) -> float:
    """The spectral norm of a random matrix, or of the convolution with it."""
    sides = math.sqrt(layer.channels) + math.sqrt(layer.fan_in)
    return math.sqrt(layer.variance * layer.overlap) * sides


def _squares(layers: list[Layer], activation: float) -> NDArray[np.float64]:
    """u**2 of every layer: the squared norm of the derivative of z by the layer's own weights."""
    squares = []
    for layer in layers:
        squares.append(layer.overlap * activation + layer.copies)
        z = layer.fan_out * layer.variance * activation + layer.outputs * layer.bias_variance
        activation = layer.activation.gain * z + layer.activation.offset * layer.outputs
    return np.array(squares, dtype=np.float64)


def _jacobians(layers: list[Layer]) -> NDArray[np.float64]:
    """|dz_h/dz_l| at [l, h] for h >= l, else 0."""
    jacobians = np.eye(len(layers))
    for i, first in enumerate(layers):
        frobenius = np.float64(first.outputs)  # squared
        for h in range(i + 1, len(layers)):
            layer, phi = layers[h], layers[h - 1].activation
            frobenius *= layer.fan_out * layer.variance * phi.square_slope
            product = _norm(layer) * phi.slope * jacobians[i, h - 1]
            jacobians[i, h] = min(product, math.sqrt(frobenius))
    return jacobians

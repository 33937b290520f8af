"""Weights of the samples in a loss."""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from lrfused.schedules.check import finite, positive, whole


@torch.no_grad()
def margin_weights(
    logits: Tensor,
    targets: Tensor,
    *,
    temperature: float = 1.0,
    floor: float = 0.0,
    ignore_index: int = -100,
) -> Tensor:
    """A weight for every sample from its margin: large where it is easy, small where it is hard.

    Multiplied with the loss of each sample they are a learning rate of its own: the optimizer makes
    long steps on what the model knows, and short ones on what it gets wrong. Their mean is 1, so
    the optimizer's lr keeps its meaning.

    Formula, for sample i with logits z and target y:
        margin m_i = z[y] - max(z[k] for k != y)   several classes
        margin m_i = z if y = 1, -z if y = 0       one logit (two classes)
        s_i = floor + (1 - floor) * sigmoid(m_i / temperature)
        weight_i = s_i / mean of s over the samples that are not ignored
        weight_i = 0                               where y is ignore_index

    Args:
        logits: floating point; of shape (N, K, ...) or (K,) with K >= 2 classes, as for
            ``torch.nn.functional.cross_entropy``, or of the shape of the targets for one logit.
        targets: of shape (N, ...) or (): classes from 0 to K - 1 as int64; for one logit 0 and 1
            in any dtype.
        temperature: scale of the margin, in the unit of the logits, > 0: the smaller, the steeper.
        floor: the least s, in [0, 1), to keep hard samples in training; with 0 a sample of margin
            -30 temperatures has a weight of 1e-13.
        ignore_index: the target of the samples that do not count.

    Returns:
        weights of the shape of the targets, on their device, float64 for float64 logits and float32
        for all others, without gradient. Where all targets are ignored they are 0. All are nan
        where a margin that counts is nan (of a nan logit, or of two equal infinities), or where
        every one is -inf and floor is 0.

    Raises:
        TypeError: an argument has the wrong type or dtype.
        ValueError: shapes or devices do not fit each other, a number is out of its range, or a
            target is no class (on a CPU. Other devices are not waited for: with several classes
            they report it as they do for cross_entropy, with one logit all weights are nan).

    Example:
        >>> import torch
        >>> from lrfused import losses
        >>> logits = torch.tensor([[4.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
        >>> targets = torch.tensor([0, 0, 0])  # easy, uncertain, wrong
        >>> weights = losses.margin_weights(logits, targets)
        >>> [round(w, 3) for w in weights.tolist()]
        [1.673, 1.246, 0.081]
        >>> loss = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        >>> round((weights * loss).mean().item(), 4)
        0.2223

    Source: Kumar et al., Self-Paced Learning for Latent Variable Models, NIPS 2010 (easy samples
    first); Koltchinskii and Panchenko, arXiv math/0405343 (the margin of several classes).
    """
    temperature = positive("temperature", temperature)
    floor = finite("floor", floor)
    if not 0.0 <= floor < 1.0:
        raise ValueError(f"floor: must be in [0, 1), got {floor}")
    ignore_index = whole("ignore_index", ignore_index, minimum=-(2**63), maximum=2**63 - 1)
    classes = _classes(logits, targets)
    if not targets.is_floating_point():
        targets = targets.long()  # in its own dtype ignore_index might wrap around to a class
    counts = targets != ignore_index
    if targets.device.type == "cpu":
        _refuse_no_class(targets, counts, classes)
    logits = logits.to(torch.float64 if logits.dtype == torch.float64 else torch.float32)
    chosen = torch.where(counts, targets, 0)
    margin = _margin(logits, chosen) if classes else _margin_of_one(logits, chosen)
    score = logsigmoid(margin / temperature)
    if floor > 0.0:
        # The smallest score is filled in on the device: a copy from the host would wait for it.
        score = torch.logaddexp(score + math.log1p(-floor), score.new_full((), math.log(floor)))
    # Normalised as logarithms: the scores of a batch of hard samples may all be 0 in float32.
    score = torch.where(counts, score, -torch.inf)
    weights = score.flatten().softmax(0).view_as(score) * counts.sum()
    return torch.where(counts, weights, 0.0)


def _classes(logits: Tensor, targets: Tensor) -> int:
    """The number of classes; 0 for one logit of two classes."""
    for name, tensor in (("logits", logits), ("targets", targets)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: must be a Tensor, got {type(tensor).__name__}")
    if not logits.is_floating_point():
        raise TypeError(f"logits: must be floating point, got {logits.dtype}")
    if logits.device != targets.device:
        raise ValueError(
            f"targets: must be on the device of the logits ({logits.device}), got {targets.device}"
        )
    if logits.shape == targets.shape:
        return 0
    axis = 0 if logits.ndim == 1 else 1
    if logits.ndim == 0 or (*logits.shape[:axis], *logits.shape[axis + 1 :]) != targets.shape:
        raise ValueError(
            f"targets: must have the shape of the logits, {tuple(logits.shape)}, with or without "
            f"the dimension of the classes, got {tuple(targets.shape)}"
        )
    if targets.dtype != torch.int64:
        raise TypeError(f"targets: must be int64 for several classes, got {targets.dtype}")
    if logits.shape[axis] < 2:
        raise ValueError(
            f"logits: must have at least 2 classes, got {logits.shape[axis]}; one logit has the "
            "shape of the targets"
        )
    return logits.shape[axis]


def _refuse_no_class(targets: Tensor, counts: Tensor, classes: int) -> None:
    """Refuse a target that is neither a class nor ignored; waits for the tensor's device."""
    is_class = (targets >= 0) & (targets < classes) if classes else (targets == 0) | (targets == 1)
    wrong = targets[counts & ~is_class]
    if wrong.numel():
        allowed = f"from 0 to {classes - 1}" if classes else "0 or 1"
        raise ValueError(f"targets: must be {allowed} or ignore_index, got {wrong[0].item()}")


def _margin_of_one(logit: Tensor, targets: Tensor) -> Tensor:
    """The logit with its sign; nan for a target that is neither 0 nor 1."""
    return torch.where(targets == 1, logit, torch.where(targets == 0, -logit, torch.nan))


def _margin(logits: Tensor, targets: Tensor) -> Tensor:
    """The target's logit minus the largest other one."""
    axis = 0 if logits.ndim == 1 else 1
    index = targets.unsqueeze(axis)
    own = logits.gather(axis, index)
    others = logits.scatter(axis, index, -torch.inf).amax(axis, keepdim=True)
    return (own - others).squeeze(axis)

"""The whole step in float64 NumPy, written from the documentation; it shares no code."""

import numpy as np

from lib.runs import numpy_of

GROUP_DEFAULTS = {
    "lr": 1e-3,
    "betas": (0.9, 0.999),
    "eps": 1e-8,
    "weight_decay": 1e-2,
    "amsgrad": False,
    "maximize": False,
    "clip_value": None,
    "agc": None,
    "agc_by": "unit",
    "weight_decay_mode": "lr",
    "peak_lr": None,
    "bias_correction": "power",
    "start_step": 0,
}


def at(value, step):
    """A number, or what a schedule gives at a step."""
    return float(value(step) if callable(value) else value)


def adaptive_factors(gradient, weight, threshold, by):
    """Brock et al. (arXiv 2102.06171), with timm's floor; shaped to multiply the gradient."""
    axes = tuple(range(1, gradient.ndim)) if by == "unit" and gradient.ndim > 1 else None
    norm = np.sqrt(np.sum(gradient**2, axis=axes, keepdims=True))
    size = np.sqrt(np.sum(weight**2, axis=axes, keepdims=True))
    limit = threshold * np.maximum(size, 1e-3)
    return np.where(norm > limit, limit / np.where(norm == 0, 1, norm), 1.0)


def global_norm(gradients, norm_type):
    """Of all gradients as one vector."""
    flat = np.concatenate([g.reshape(-1) for g in gradients]) if gradients else np.zeros(0)
    if norm_type == float("inf"):
        return float(np.max(np.abs(flat), initial=0.0))
    return float(np.sqrt(np.sum(flat * flat)))


class PlainAdamW:
    """Like ``lrfused.AdamW`` with parameters dealt out alternately to ``groups``."""

    def __init__(
        self,
        values,
        groups=({},),
        max_grad_norm=None,
        norm_type=2.0,
        accumulation_steps=1,
        loss_scale=1.0,
        **defaults,
    ):
        self.p = [numpy_of(value) for value in values]
        self.groups = [{**GROUP_DEFAULTS, **defaults, **group} for group in groups]
        self.max_grad_norm, self.norm_type = max_grad_norm, norm_type
        self.divisor = accumulation_steps * loss_scale
        self.steps = 0
        self.m, self.v, self.largest_v = ([np.zeros_like(p) for p in self.p] for _ in range(3))
        self.size_m = [np.zeros_like(p) for p in self.p]  # m if all its terms were positive
        self.count = [0] * len(self.p)
        self.products = [[1.0, 1.0] for _ in self.p]
        self.grad_norm = self.coefficient = None
        self.clipped = {}

    def step(self, gradients):
        """One step; leaves ``grad_norm``, ``coefficient`` and the ``clipped`` gradients behind."""
        unscaled = {
            i: numpy_of(g) / self.divisor
            for i, g in enumerate(gradients)
            if g is not None and self.steps >= self.group(i)["start_step"]
        }
        self.grad_norm = global_norm(list(unscaled.values()), self.norm_type)
        self.clipped = {i: self.clip_alone(i, g) for i, g in unscaled.items()}
        self.coefficient = 1.0
        if self.max_grad_norm is not None:
            norm = global_norm(list(self.clipped.values()), self.norm_type)
            self.coefficient = min(1.0, at(self.max_grad_norm, self.steps) / (norm + 1e-6))
        for i in self.clipped:
            self.clipped[i] = self.clipped[i] * self.coefficient
            self.update(i, self.clipped[i])
        self.steps += 1

    def group(self, i):
        return self.groups[i % len(self.groups)]

    def clip_alone(self, i, gradient):
        """What a tensor does to its gradient without looking at others."""
        group = self.group(i)
        if group["clip_value"] is not None:
            bound = at(group["clip_value"], self.steps)
            gradient = np.clip(gradient, -bound, bound)
        if group["agc"] is not None:
            threshold = at(group["agc"], self.steps)
            factors = adaptive_factors(gradient, self.p[i], threshold, group["agc_by"])
            gradient = gradient * factors
        return gradient

    def decay(self, group):
        """What the parameter is multiplied by."""
        lr, weight_decay = at(group["lr"], self.steps), at(group["weight_decay"], self.steps)
        rate = {
            "lr": lr * weight_decay,
            "independent": weight_decay,
            "lr_ratio": weight_decay * lr / (group["peak_lr"] or lr),
        }
        return 1.0 - rate[group["weight_decay_mode"]]

    def bias_corrections(self, i, group, betas):
        self.count[i] += 1
        self.products[i] = [q * beta for q, beta in zip(self.products[i], betas, strict=True)]
        if group["bias_correction"] == "product":
            return [1.0 - q for q in self.products[i]]
        return [1.0 - beta ** self.count[i] for beta in betas]

    def update(self, i, gradient):
        group = self.group(i)
        betas = [at(beta, self.steps) for beta in group["betas"]]
        first, second = self.bias_corrections(i, group, betas)
        g = -gradient if group["maximize"] else gradient
        self.m[i] = betas[0] * self.m[i] + (1.0 - betas[0]) * g
        self.size_m[i] = betas[0] * self.size_m[i] + (1.0 - betas[0]) * np.abs(g)
        self.v[i] = betas[1] * self.v[i] + (1.0 - betas[1]) * g**2
        self.largest_v[i] = np.maximum(self.largest_v[i], self.v[i])
        v = self.largest_v[i] if group["amsgrad"] else self.v[i]
        move = (self.m[i] / first) / (np.sqrt(v / second) + at(group["eps"], self.steps))
        self.p[i] = self.p[i] * self.decay(group) - at(group["lr"], self.steps) * move

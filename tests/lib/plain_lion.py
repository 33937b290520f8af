"""Lion from its paper, as a plain optimizer of torch's; it shares no code."""

import torch


class PlainLion(torch.optim.Optimizer):
    """Algorithm 2 of arXiv 2302.06675, decay first.

    In float64, but what makes the sum of which the sign is taken is computed in the type of the
    step: a sum near 0 that is rounded to its other side would turn the whole update.
    """

    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0, *, maximize=False):
        defaults = {"lr": lr, "betas": betas, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    self._update(group, param)
        return loss

    def _update(self, group, param):
        if "exp_avg" not in self.state[param]:
            self.state[param]["exp_avg"] = torch.zeros_like(
                param, memory_format=torch.preserve_format
            )
        moment = self.state[param]["exp_avg"]
        lr, weight_decay = float(group["lr"]), float(group["weight_decay"])
        beta1, beta2 = map(float, group["betas"])
        g, m, p = (_wide(tensor) for tensor in (param.grad, moment, param))
        g = -g if group["maximize"] else g
        direction = _sign(m * beta1 + g * (1.0 - beta1))
        g, m, p = g.double(), m.double(), p.double()
        _write(param, p - p * lr * weight_decay - lr * direction)
        _write(moment, m * beta2 + g * (1.0 - beta2))


def _wide(tensor):
    """In the type of the step; complex numbers as pairs."""
    values = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _sign(x):
    """That of nan is nan."""
    return torch.where(torch.isnan(x), x, torch.sign(x))


def _write(tensor, values):
    (torch.view_as_real(tensor) if tensor.is_complex() else tensor).copy_(values)

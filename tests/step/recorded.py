"""Runs of AdamW whose bits were recorded, so that another structure can be shown to give the same.

Parameters and gradients are made of integers, by arithmetic that no version of anything changes.
`python -m step.recorded COMMIT` (in tests/) writes recorded_adamw.json from the reference backend
of the checkout; it was run at the commit that the file names, and is not to be run again to make a
test pass.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import torch

import lrfused
from lrfused import schedules

FILE = Path(__file__).with_name("recorded_adamw.json")
SHAPES = [(), (3,), (5, 13), (0, 4), (65,), (7, 1, 90), (515,)]
LONG = [*SHAPES, (2, 70000)]  # units of several chunks
STATE = ("step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq")
STEPS = 7
F64, F32, BF16, F16 = torch.float64, torch.float32, torch.bfloat16, torch.float16

LR = schedules.warmup_cosine(3e-2, warmup_steps=2, total_steps=9)
BETAS = (schedules.linear(0.8, 0.95, steps=5), schedules.linear(0.9, 0.999, steps=6))
OTHERS = ("lr", "tiny_gradients")
LIMITS = {"max_grad_norm": 3.0, "clip_value": 0.75, "agc": 0.05}
SCALED = {"loss_scale": lrfused.LossScale(init=1024.0, growth_interval=2)}
TWO = ({"amsgrad": True, "weight_decay": 0.3}, {"maximize": True, "betas": (0.7, 0.99)})

# Of each case: dtypes of the parameters (and of their gradients, if others), options, groups.
CASES = {
    "plain": ((F32,), {}, ({},)),
    "double": ((F64,), {"amsgrad": True}, ({},)),
    "bfloat16": ((BF16,), {"weight_decay": 0.2}, ({},)),
    "half": ((F16,), {"amsgrad": True, "eps": 1e-4}, ({},)),
    "mixed": ((F64, F32, BF16, F16), {"max_grad_norm": 2.0}, ({},)),
    "half-gradients": ((F32, BF16), {"max_grad_norm": 2.0}, ({},), (F16, BF16)),
    "groups": ((F32, F64), {"lr": LR}, TWO),
    "scheduled": ((F32, BF16), {"lr": LR, "betas": BETAS, "weight_decay": LR * 9.0}, TWO),
    "product": ((F32, F64), {"lr": LR, "betas": BETAS, "bias_correction": "product"}, TWO),
    "independent": ((F32,), {"lr": LR, "weight_decay_mode": "independent"}, TWO),
    "ratio": ((F32,), {"lr": LR, "weight_decay_mode": "lr_ratio", "peak_lr": 0.03}, TWO),
    "clips": ((F32, F64, BF16), {**LIMITS, "lr": LR}, TWO),
    "units": ((F32,), {"agc": 0.02, "norm_type": float("inf"), "max_grad_norm": 0.5}, ({},)),
    "tensors": ((F32,), {"agc": LR, "agc_by": "tensor", "accumulation_steps": 3}, TWO),
    "scaled": ((F32, F16), {**SCALED, **LIMITS}, TWO),
    "skips": ((F32,), {"nonfinite": "skip", "lr": LR, "advance_schedule_on_skip": True}, TWO),
    "later": ((F32,), {"lr": LR}, ({}, {"start_step": 3})),
    "long": ((F32,), {"agc": 0.02, "max_grad_norm": 0.5, "lr": LR}, ({},)),
    "written": ((F32, BF16), {"write_grads": True, **LIMITS}, TWO),
}


def _numbers(seed: int, count: int) -> np.ndarray:
    """Numbers in (-1, 1), of magnitudes from 2**-12 on."""
    x = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x = (x + np.uint64(seed)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(29))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(32))
    fraction = (x >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0
    return fraction * 2.0 ** -(x % np.uint64(12)).astype(np.float64)


def _tensor(seed: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    count = int(np.prod(shape))
    return torch.from_numpy(_numbers(seed, count)).reshape(shape).to(dtype)


def run(case: str, backend: str) -> list[torch.Tensor]:
    """Parameters, gradients, state and metrics after some steps, as the case has them."""
    dtypes, options, groups, *of_gradients = CASES[case]
    wanted = of_gradients[0] if of_gradients else dtypes
    params = []
    for i, shape in enumerate(_shapes(case)):
        params.append(torch.nn.Parameter(_tensor(i, shape, dtypes[i % len(dtypes)])))
        if hasattr(params[i], "grad_dtype"):
            params[i].grad_dtype = None
    dealt = [{"params": params[i :: len(groups)], **own} for i, own in enumerate(groups)]
    opt = lrfused.AdamW(dealt, backend=backend, **options)
    opt.scale(torch.zeros(()))
    shown = []
    for step in range(STEPS):
        for i, p in enumerate(params):
            _give(p, None if step and (i + step) % 5 == 0 else _gradient(case, step, i, wanted))
        opt.step()
        shown.append([float(x or 0) for x in _flat(opt.metrics())])
    found = [p.detach() for p in params] + [p.grad for p in params if p.grad is not None]
    found += [opt.state[p][k] for p in params for k in STATE if k in opt.state.get(p, {})]
    return [*found, torch.tensor(shown, dtype=F64)]


def _shapes(case: str) -> list[tuple[int, ...]]:
    return LONG if case == "long" else SHAPES


def _gradient(case: str, step: int, i: int, dtypes: tuple[torch.dtype, ...]) -> torch.Tensor:
    size = 1024.0 if case == "scaled" else 4.0 ** (step - 3)
    g = _tensor(100 * step + i, _shapes(case)[i], F64) * size
    if case in ("skips", "scaled") and step in (2, 5) and i == 4:
        g[64] = float("inf")
    return g.to(dtypes[i % len(dtypes)])


def _give(p: torch.nn.Parameter, g: torch.Tensor | None) -> None:
    if g is None or g.dtype == p.dtype or hasattr(p, "grad_dtype"):
        p.grad = g
    else:  # what a torch without grad_dtype takes
        p.grad = torch.empty_like(g, dtype=p.dtype)
        p.grad.data = g


def _flat(metrics: dict) -> list:
    """Those that there were when the bits were recorded."""
    return [*metrics["lr"], *(value for name, value in metrics.items() if name not in OTHERS)]


def digest(tensors: list[torch.Tensor]) -> str:
    """Of the bits, by which all nan are one."""
    whole = hashlib.sha256()
    for tensor in tensors:
        whole.update(f"{tensor.dtype} {tuple(tensor.shape)};".encode())
        same = torch.where(tensor.isnan(), torch.full_like(tensor, float("nan")), tensor)
        whole.update(same.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


def main(commit: str) -> None:
    digests = {case: digest(run(case, "reference")) for case in CASES}
    FILE.write_text(json.dumps({"commit": commit, "digests": digests}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])

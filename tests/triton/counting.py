"""Counts what Triton compiles while an optimizer runs; a process of its own, without a GPU.

A driver that only names a target lets Triton do everything of a launch but the launch. Prints
the number of compilations after each of some steps that differ in numbers only, then after one
that differs in shape. Then the number after steps whose GradScaler's tensors lie at no
multiple of 16 bytes.
"""

import json
import warnings

import torch
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

import lrfused
from lrfused import schedules as S
from lrfused.backends.registry import BACKENDS
from lrfused.backends.triton import step as triton_step
from lrfused.engine import bind


class Driver:
    """A GPU that is not there."""

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0

    def get_active_torch_device(self):
        return torch.device("cpu")


def warm_up(kernel, programs, device, arguments, *constants, most_registers):
    kernel.warmup(*arguments, *constants, grid=(programs,), num_warps=4, enable_fp_fusion=False)


def compiled(*args, **kwargs):
    counts.append(kwargs["fn"].name)


counts = []


def train(lr, sizes, **options):
    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(size)) for size in sizes]
    opt = lrfused.AdamW(params, lr=lr, max_grad_norm=1.0, **options)
    for p in params:
        p.grad = torch.randn_like(p)
    opt.step()
    return opt


def main():
    warnings.simplefilter("ignore")
    triton_step.launch = warm_up
    bind.choose_for_all = lambda choice, devices: BACKENDS["triton"]
    driver.set_active(Driver())
    knobs.runtime.jit_post_compile_hook = compiled
    seen = []
    opt = train(S.warmup_cosine(1e-3, 10, 100), [(5,), (7, 3)])
    seen.append(len(counts))
    opt.param_groups[0]["lr"] = 0.25
    opt.step()
    seen.append(len(counts))
    for peak in (1e-2, 3e-4):  # with other numbers, sizes and options that are data
        train(S.warmup_cosine(peak, 3, 50, end=1e-6), [(70000,), (), (16, 16)], weight_decay=0.5)
        seen.append(len(counts))
    resumed = train(S.warmup_cosine(1e-3, 10, 100), [(5,), (7, 3)])
    resumed.load_state_dict(opt.state_dict())
    resumed.step()
    seen.append(len(counts))
    train(S.linear(1e-3, 0.0, 10), [(5,), (7, 3)])
    seen.append(len(counts))
    for start in range(4):
        found_inf, grad_scale = torch.zeros(8)[start : start + 1], torch.ones(8)[start : start + 1]
        vars(opt).update(found_inf=found_inf, grad_scale=grad_scale)
        opt.step()
    seen.append(len(counts))
    print(json.dumps(seen))


if __name__ == "__main__":
    main()

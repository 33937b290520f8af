"""What is stepped: lists of tensor shapes, the forms of a pipeline, and their order in a run."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Form:
    """How much of a training step's end is timed."""

    name: str
    title: str
    clips: bool  # the global norm clip and the learning-rate schedule
    unscales: bool


STEP = Form("step", "step", clips=False, unscales=False)
CLIP = Form("clip", "clip + step + schedule", clips=True, unscales=False)
UNSCALE = Form("unscale", "unscale + clip + step + schedule", clips=True, unscales=True)
FORMS = {form.name: form for form in (STEP, CLIP, UNSCALE)}


@dataclass(frozen=True)
class Workload:
    """Tensors to be stepped, and how many steps a provider takes when it is its turn.

    ``fresh`` replaces every gradient by a new tensor before each step, as training does after
    ``zero_grad(set_to_none=True)``; otherwise the tensors stay and get new values. ``optimizer``
    is the name of the rule by which they are stepped, ``rider`` of what goes along
    (``rider_costs.py``).
    """

    name: str
    title: str
    shapes: tuple[Shape, ...]
    fresh: bool = False
    untimed_steps: int = 0
    timed_steps: int = 1
    optimizer: str = "adamw"
    rider: str = ""

    @property
    def sizes(self) -> list[int]:
        return [math.prod(shape) for shape in self.shapes]

    @property
    def parameters(self) -> int:
        return sum(self.sizes)


@dataclass(frozen=True)
class Case:
    """One comparison: the providers step the same tensors of one dtype in one form."""

    workload: Workload
    dtype: torch.dtype
    form: Form

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @property
    def key(self) -> tuple[str, str, str]:
        return (self.workload.name, self.dtype_name, self.form.name)


def gpt2_shapes(vocabulary: int, positions: int, width: int, layers: int) -> tuple[Shape, ...]:
    """The parameters of a GPT-2 with a tied head, in the order of its modules.

    Source: Radford et al., Language Models are Unsupervised Multitask Learners; its published
    weights (124M: 50257, 1024, 768, 12).
    """
    norm: tuple[Shape, ...] = ((width,), (width,))
    block = (
        *norm,
        *((width, 3 * width), (3 * width,), (width, width), (width,)),
        *norm,
        *((width, 4 * width), (4 * width,), (4 * width, width), (width,)),
    )
    return ((vocabulary, width), (positions, width), *(block * layers), *norm)


def llama_shapes(vocabulary: int, width: int, hidden: int, layers: int) -> tuple[Shape, ...]:
    """The parameters of a LLaMA, in the order of its modules.

    Source: Touvron et al., LLaMA: Open and Efficient Foundation Language Models (7B: 32000, 4096,
    11008, 32).
    """
    attention = ((width, width),) * 4
    block = (*attention, (hidden, width), (hidden, width), (width, hidden), (width,), (width,))
    return ((vocabulary, width), *(block * layers), (width,), (vocabulary, width))


# Short work is repeated while it is a provider's turn, with the caches as that provider left them.
SHORT = {"untimed_steps": 3, "timed_steps": 20}
GPT2 = gpt2_shapes(50257, 1024, 768, 12)
SMALL = gpt2_shapes(512, 128, 128, 5)
RIDERS = {"average": "averaged", "masks": "masked", "zero-grads": "gradients zeroed"}


def ridden(name: str, title: str, shapes: tuple[Shape, ...], **steps: int) -> tuple[Workload, ...]:
    """The same tensors with each of the riders."""
    return tuple(
        Workload(f"{name}-{rider}", f"{title}, {does}", shapes, **steps, rider=rider)
        for rider, does in RIDERS.items()
    )


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("gpt2", "GPT-2 124M, 148 tensors", GPT2),
        Workload("tiny148", "148 tensors of 64", ((64,),) * 148, **SHORT),
        Workload("tiny148-fresh", "148 of 64, fresh grads", ((64,),) * 148, True, **SHORT),
        Workload("small", "1M parameters, 64 tensors", SMALL, **SHORT),
        Workload("tiny1000", "1000 tensors of 64", ((64,),) * 1000, **SHORT),
        Workload("tiny1000-fresh", "1000 of 64, fresh grads", ((64,),) * 1000, True, **SHORT),
        Workload("large", "one tensor of 100M", ((100_000_000,),)),
        *ridden("gpt2", "GPT-2 124M", GPT2),
        *ridden("small", "1M parameters", SMALL, **SHORT),
    )
}
# Elements are next to nothing of the time of tiny tensors: one dtype says it all.
FLOAT32_ONLY = ("tiny148", "tiny148-fresh", "tiny1000", "tiny1000-fresh")

# A GPU takes several steps in a turn of any work: its clocks and caches need some to settle.
LONG = {"untimed_steps": 2, "timed_steps": 7}
LLAMA_7B = llama_shapes(32000, 4096, 11008, 32)

GPU_WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("gpt2", "GPT-2 124M, 148 tensors", GPT2, **LONG),
        Workload("gpt2-sgd", "GPT-2 124M by SGD", GPT2, **LONG, optimizer="sgd"),
        Workload("gpt2-lion", "GPT-2 124M by Lion", GPT2, **LONG, optimizer="lion"),
        *ridden("gpt2", "GPT-2 124M", GPT2, **LONG),
        Workload("gpt3", "GPT-3 1.3B, 292 tensors", gpt2_shapes(50257, 2048, 2048, 24), **LONG),
        *(WORKLOADS[name] for name in FLOAT32_ONLY),
        Workload("medium2000", "2000 tensors of 4096", ((4096,),) * 2000, **LONG),
        Workload("llama-7b", "LLaMA 7B, 291 tensors", LLAMA_7B, **LONG),
    )
}
SMALL_RIDDEN = tuple(f"small-{rider}" for rider in RIDERS)
QUICK_WORKLOADS = ("gpt2", "tiny148", "tiny148-fresh", "small", *SMALL_RIDDEN)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def find(name: str) -> Workload:
    """A workload of any device; those with the same name have the same tensors."""
    return WORKLOADS.get(name) or GPU_WORKLOADS[name]


def select(
    workloads: list[str],
    dtypes: list[str],
    forms: list[str],
    known: Mapping[str, Workload] = WORKLOADS,
) -> list[Case]:
    """The cases of a run in the order of ``workloads``: a run that is cut off keeps the first.

    Of several forms riders take the clip alone: what they add depends on it next to nothing.
    """
    return [
        Case(known[name], DTYPES[dtype], FORMS[form])
        for name in workloads
        for dtype in dtypes
        if dtype == "float32" or name not in FLOAT32_ONLY
        for form in forms
        if not known[name].rider or len(forms) == 1 or form == CLIP.name
    ]

"""Tables of docs/counts.md that are read from PTX: what a block waits for, what plan takes."""

from functools import cache
from typing import Any

from ptx.build import cuda_ptx
from ptx.grammar import Function, Instruction, Module, parse

from counted import parts as counting
from counted import plan_model
from counted.chain import Chain, Sources, chain_to
from counted.plan_model import CASES, L2, LAUNCH, MEMORY, TURNS_OF, Model, turns
from counted.sections import filled, table

ARCHITECTURE = "90"
# The line that loads the first gradient; what is not on the way of a block that only measures.
FIRST = {"applyAdamW": "auto g = read_aligned<", "measure": "read_rows("}
# Files of what the first block prepares, and of the interpreter, which a clip by value may need.
ELSEWHERE = ("prepare.cuh", "scalars.cuh", "scalars.h", "program.cuh", "program.h")
PROLOGUE = """\
## Before a block asks for its first gradient

The way back from the first load of a gradient, in PTX for sm_90: its address to the registers it
comes from, a register to the instruction that fills it, a value in shared memory to what was
stored there, until a load from global memory, and on from that one's address. Kernel parameters
(among them the gradients' addresses, unless a captured graph has them on the device: then the
last link is one more load) are no links, they are constants. "In order" is the longest chain if
whatever stands behind a branch or a barrier also waits for what decides about it: an upper bound,
as ptxas may load earlier, with all that a way can have (three operands, adaptive clipping). Other
places are links whose address comes from another register than one before: the rest finds its
line in the first cache. A block of apply of GPT-2 is there for 30 us (855 us in
`gpu-phases.json`, 15,274 tiles, 528 at once): {waits} loads in order after the wait, from L2, are
{share:.0f}% of that, in which the other three blocks of its multiprocessor go on.

"""
PLAN = """\
## Plan, one after the other

What the block does that plans, and the first block before it measures ("prepared"). A part's
instructions are all that PTX for sm_90 has of it, its loads the longest chain, branches and
barriers followed. Both are of one turn.

"""
MODEL = """\
A part takes its turns times its loads at {l2:.0f} ns (taken to be in L2), and once its instructions
at {cycles:.1f} cycles of 1.7 GHz each: they are executed once in a step, so they may come from L2,
too, as eight instructions of a line in {line:.0f} cycles. An instruction of a schedule takes
{step:.0f} ns ({source}), AdamW's scalars are {rule} of them, an empty launch is taken to be
{launch:.0f} us. The cycles are fitted: to the {measured:.1f} us that plan alone took on an H200 at
57f74d4 (GPT-2, 148 tensors, 1 group, a cosine), where one block did all parts; the counts are of
today's code, which has fewer barriers.

Checked: 1000 tensors in place of one add {thousand:.0f} us (20 measured, `gpu-plan.json`), a cosine
{cosine:.1f} (6 to 11, of which 6.4 went into the model). Not met: 8 spans in place of one add
{spans:.1f} (7 measured), GPT-2 in place of one tensor {whole:.0f} (15 measured, before rules). The
model has no place for what GPT-2's step pushes out of L2: that is in its cycles, so small
optimizers, whose tables stay there, should be some 10 us quicker than it says. In the interpreter
the longest arms have {arms} instructions.

In us: all in one block, as before 20b6cca; prepared while others measure; what is behind the last
part of measure; plan alone (a launch, the first block prepares beside the blocks of the spans).
What is prepared costs nothing where measure takes longer. Behind measure at {memory:.0f} ns a load:
what it may be if measure has pushed everything out of L2.

"""


@cache
def ptx(stem: str) -> Module:
    """A unit that nvcc compiled."""
    path = next(path for path in cuda_ptx(ARCHITECTURE) if path.stem == stem)
    return parse(path.read_text(encoding="utf-8"))


def few(module: Module) -> Function:
    """The kernel with few gradients among its parameters: the smaller parameter."""
    entries = [function for function in module.functions if function.is_entry]
    return min(entries, key=lambda function: function.parameters[0].size)


def chain_of(stem: str, orders: bool) -> Chain:
    """To the first gradient."""
    sources = Sources(ptx(stem))

    def is_first(one: Instruction) -> bool:
        return any(FIRST[stem] in text for _, text in sources.texts(one))

    def is_elsewhere(one: Instruction) -> bool:
        return any(file in ELSEWHERE for file, _ in sources.texts(one))

    return chain_to(few(ptx(stem)), is_first, is_elsewhere, orders)


def prologues() -> list[str]:
    rows: list[list[Any]] = []
    lines: list[str] = []
    for stem, title in (("applyAdamW", "apply, AdamW"), ("measure", "measure")):
        address, order = chain_of(stem, False), chain_of(stem, True)
        waits = after_wait(stem, order)
        rows.append(
            [title, len(address), len(order), places(order), waits]
            + [f"{len(address) * MEMORY:.1f}", f"{places(order) * MEMORY:.1f}"]
        )
        texts = [next(Sources(ptx(stem)).texts(load))[1] for load in order]
        kept = [text for i, text in enumerate(texts) if text not in texts[:i]]
        lines += [f"{title}, in order, a line of the sources once:\n"]
        lines += [f"{number}. `{text}`" for number, text in enumerate(kept, 1)] + [""]
    heads = ("kernel", "loads by address", "in order", "of other places", "after waiting for plan")
    heads += ("us by address, from memory", "us of the other places")
    waits = int(rows[0][4])
    text = PROLOGUE.format(waits=waits, share=waits * L2 / 30 * 100)
    return [filled(text.rstrip()) + "\n" + "\n".join(table(heads, rows)), *lines]


def places(chain: Chain) -> int:
    """Links that no link before has read by the same register."""
    return len({load.operands[1].split("+")[0].strip("[]") for load in chain})


def after_wait(stem: str, chain: Chain) -> str:
    """Links that no dependent launch can do before plan has ended."""
    body = few(ptx(stem)).body
    waits = [i for i, one in enumerate(body) if getattr(one, "opcode", "") == "griddepcontrol.wait"]
    if not waits:
        return "-"
    return str(sum(body.index(load) > waits[0] for load in chain))


def model() -> Model:
    module = ptx("measure")
    return plan_model.fitted(counting.parts(few(module), Sources(module)))


def plan() -> list[str]:
    fitted = model()
    gpt2 = plan_model.GPT2
    rows = [
        [name, part.instructions, part.loads, turns(name, gpt2), f"{fitted.of(name, gpt2):.1f}"]
        + [TURNS_OF[name]]
        for name, part in fitted.parts.items()
    ]
    heads = ("part", "instructions", "loads", "turns for GPT-2", "us for GPT-2", "turns")
    return [PLAN + "\n".join(table(heads, rows)), checks(fitted), *cases(fitted)]


def checks(fitted: Model) -> str:
    """The model in words."""
    arms = counting.arms(few(ptx("measure")), Sources(ptx("measure")))
    gpt2, whole = plan_model.GPT2, fitted.one_after_the_other

    def added(**other: int) -> float:
        return whole(gpt2) - whole(plan_model.replace(gpt2, **other))

    text = MODEL.format(
        l2=L2 * 1e3,
        memory=MEMORY * 1e3,
        cycles=fitted.cycles,
        line=8 * fitted.cycles,
        step=plan_model.INTERPRETED * 1e3,
        source="6.4 us for the 19 of a warm-up and a cosine, `gpu-plan.json`",
        rule=plan_model.OF_RULE,
        launch=LAUNCH,
        measured=plan_model.measured_plan(),
        thousand=-added(tensors=1000) + added(tensors=1),
        spans=added(chunks=1),
        cosine=added(program=0),
        whole=added(tensors=1, chunks=1),
        arms=", ".join(f"{name} {count}" for name, count in arms.items() if count > 20),
    )
    return filled(text.rstrip())


def cases(fitted: Model) -> list[str]:
    cold = Model(fitted.parts, fitted.cycles, MEMORY)
    rows = [
        [work.title, work.groups, work.tensors, work.chunks, work.spans, work.units]
        + [
            f"{time:.0f}"
            for time in (
                fitted.one_after_the_other(work),
                fitted.prepared(work),
                fitted.behind(work),
                cold.behind(work),
                fitted.alone(work),
            )
        ]
        for work in CASES
    ]
    heads = ("case", "groups", "tensors", "chunks", "spans", "long units", "all in one block")
    heads += ("prepared", "behind measure", "the same from memory", "plan alone")
    return table(heads, rows)

"""Instructions and dependent loads of the parts of measure_and_plan that one block does, in PTX.

An instruction belongs to the first part whose call, or else whose file, is among what it was made
of. A loop counts once, even where nvcc wrote it four times over: loads of one line are one.
"""

from collections import Counter
from dataclasses import dataclass

from ptx.grammar import Function, Instruction

from counted import flow
from counted.chain import Reader, Sources

# By the text of a call. A part inside of another one stands before it.
CALLS = {
    "hyperparameters": "evaluate_hyperparameters(a, now",
    "what is wrong": "first_wrong(a, now",
    "leaders": "choose_leaders(a, shared.leaders)",
    "rows": "fill_rows(a, shared)",
    "a unit": "plan_unit(a, row",
    "a span": "plan_span(a, span",
    "sums of spans": "sums_of_spans(a.table",
    "fields": "a.state.write(FIELDS + i",
    "updates": "count_updates(a)",
    "decision": "plan.cuh",
    "tickets": "tickets.cuh",
}


@dataclass(frozen=True)
class Part:
    instructions: int
    loads: int  # from global memory, each after the one before it


def parts(function: Function, sources: Sources) -> dict[str, Part]:
    """Of what nvcc made of a kernel."""
    found: dict[str, list[Instruction]] = {name: [] for name in CALLS}
    blocks = flow.blocks_of(function)
    for number in flow.order(blocks):
        for one in blocks[number].instructions:
            if name := part_of(one, sources):
                found[name].append(one)
    return {name: Part(len(ones), serial_loads(ones)) for name, ones in found.items()}


def part_of(one: Instruction, sources: Sources) -> str | None:
    """Its name; None of what interprets, which is counted by itself."""
    texts = list(sources.texts(one))
    if any(file == "program.h" or "evaluate_scalars(" in text for file, text in texts):
        return None
    made_of = {text for both in texts for text in both}
    return next((n for n, call in CALLS.items() if any(call in text for text in made_of)), None)


def serial_loads(ones: list[Instruction]) -> int:
    """The longest chain that begins in these instructions, branches and barriers followed, too."""
    reader = Reader(orders=True)
    for one in ones:
        reader.read(one)
    chains = [reader.before, *reader.chains.values()]
    return max((len({load.source for load in chain}) for chain in chains), default=0)


def arms(function: Function, sources: Sources) -> dict[str, int]:
    """Instructions of each arm of the interpreter, which is compiled in several times."""
    counts: Counter[str] = Counter()
    for one in function.body:
        if not isinstance(one, Instruction):
            continue
        for file, text in sources.texts(one):
            if file == "program.h" and text.startswith("case "):
                counts[text.split()[1].rstrip(":")] += 1
    copies = counts["MUL"] // 2  # a multiplication and the jump behind it
    return {name: round(count / copies) for name, count in sorted(counts.items())}

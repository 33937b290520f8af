"""PTX as C++: a function for each entry, and a count of what it has executed.

The C++ follows the PTX line by line: a register is a variable, a label a label, and each line has
its own number for messages. What an instruction does stands in opcodes.py.
"""

import re
from dataclasses import dataclass
from pathlib import PurePath

from ptx.grammar import Function, Instruction, Label, Module, UnknownPtx, Variable
from ptx.statements import Statements, name_of, poison, variable_of

TELLING = ("ld", "st", "atom", "bar", "membar", "fence", "griddep", "shfl", "redux", "trap", "div")
HEAD = '#include "machine.h"\n\n'


@dataclass
class Translation:
    """C++, and for each counter the lines that are executed together."""

    cpp: str
    counters: list[list[int]]
    parameter_sizes: dict[str, int]
    shared_size: int  # what is declared with a size
    sources: dict[int, str]  # by line of PTX: the lines that it was compiled from, innermost first
    places: dict[int, str]  # the innermost of those of this project, for every line


def translate(module: Module) -> Translation:
    """All functions of a module.

    Raises:
        UnknownPtx: an instruction that no table has, with its line.
    """
    unit = _Unit(module)
    entries = [function for function in module.functions if function.is_entry]
    first_of: dict[str, str] = {}
    bodies = []
    for function in module.functions:
        first = first_of.setdefault(_likeness(function), function.name)
        if first == function.name or not function.is_entry:
            bodies.append(unit.function(function))
        else:  # told apart by the size of its parameters alone
            bodies.append(f"{unit.signature(function)} {{ {name_of(first)}(); }}\n")
    size = max(1, len(unit.counters))
    counters = f"PTX_SHOWN unsigned char ptx_seen[];\nunsigned char ptx_seen[{size}];\n"
    declared = [unit.signature(f) + ";\n" for f in module.functions if not f.is_entry]
    return Translation(
        "".join([HEAD, counters, *unit.constants(), *declared, "\n", *bodies]),
        unit.counters,
        {entry.name: _laid_out(entry.parameters)[1] for entry in entries},
        unit.shared_size,
        _sources(module),
        _places(module),
    )


def _places(module: Module) -> dict[int, str]:
    names = {number: PurePath(name) for number, name in module.files.items()}
    return {
        item.line: next(
            (
                f"{names[file].name}:{line}"
                for file, line in item.source
                if file in names and names[file].suffix != ".hpp"
            ),
            "",
        )
        for function in module.functions
        for item in function.body
        if isinstance(item, Instruction)
    }


def _sources(module: Module) -> dict[int, str]:
    """Of what touches memory or waits."""
    names = {number: PurePath(name).name for number, name in module.files.items()}
    return {
        item.line: " < ".join(f"{names.get(file, file)}:{line}" for file, line in item.source)
        for function in module.functions
        for item in function.body
        if isinstance(item, Instruction) and item.source and item.opcode.startswith(TELLING)
    }


def _likeness(function: Function) -> str:
    """Equal for functions that do the same, whatever the names of labels and parameters."""
    labels = [item.name for item in function.body if isinstance(item, Label)]
    names = {name: f"label{i}" for i, name in enumerate(labels)}
    names |= {p.name: f"parameter{i}" for i, p in enumerate(function.parameters)}

    def plain(item: Instruction | Label) -> object:
        if isinstance(item, Label):
            return names[item.name]
        operands = [re.sub(r"[\w$]+", lambda f: names.get(f[0], f[0]), o) for o in item.operands]
        return item.guard, item.opcode, *operands

    tables = [[names[label] for label in table] for table in function.tables.values()]
    places = list(_laid_out(function.parameters)[0].values())
    passed = [(v.name, v.size) for v in function.variables]
    body = list(map(plain, function.body))
    return repr((function.is_entry, body, function.registers, tables, places, passed))


def _laid_out(variables: list[Variable]) -> tuple[dict[str, int], int]:
    """The offset of each, one behind the other, those without a size last; and the size of all."""
    offsets, size = {}, 0
    for variable in sorted(variables, key=lambda v: not v.size):
        size = -(-size // variable.alignment) * variable.alignment
        offsets[variable.name] = size
        size += variable.size
    return offsets, size


class _Unit:
    def __init__(self, module: Module):
        self.module = module
        shared = [v for v in module.variables if v.space == "shared"]
        self.shared, self.shared_size = _laid_out(shared)
        self.counters: list[list[int]] = []
        for variable in module.variables:
            if variable.space not in ("shared", "const"):
                raise UnknownPtx(f"a variable in {variable.space} memory: {variable.name}")

    def constants(self) -> list[str]:
        return [
            f"alignas({v.alignment}) static const unsigned char {name_of(v.name)}[{v.size}] = "
            f"{{{','.join(map(str, v.values))}}};\n"
            for v in self.module.variables
            if v.space == "const"
        ]

    def signature(self, function: Function) -> str:
        if function.is_entry:
            return (
                f'extern "C" __attribute__((visibility("default"))) void {name_of(function.name)}()'
            )
        names = ", ".join(f"char* {name_of(p.name)}" for p in function.parameters)
        return f"static void {name_of(function.name)}({names})"

    def function(self, function: Function) -> str:
        return _Body(self, function).text()

    def count(self) -> str:
        """A new counter, with a statement that sets it."""
        self.counters.append([])
        return f"ptx_seen[{len(self.counters) - 1}] = 1;"


class _Body:
    """One function's."""

    def __init__(self, unit: _Unit, function: Function):
        self.unit, self.own = unit, function
        self.statements = Statements(function, self._symbols())

    def _symbols(self) -> dict[str, str]:
        """The addresses of what has a name, as expressions."""
        unit, function = self.unit, self.own
        symbols = {name: f"u64({offset})" for name, offset in unit.shared.items()}
        named = [v.name for v in unit.module.variables if v.space == "const"]
        named += [v.name for v in function.variables]  # what is passed to a function
        if function.is_entry:
            for name, offset in _laid_out(function.parameters)[0].items():
                symbols[name] = f"(u64(ptx_thread.parameters) + {offset})"
        else:
            named += [parameter.name for parameter in function.parameters]
        return symbols | {name: f"u64({name_of(name)})" for name in named}

    def text(self) -> str:
        lines = [self.unit.signature(self.own), "{"]
        for name, kind in self.own.registers.items():
            lines.append(f"    {kind} {variable_of(name)} = {poison(kind)};")
        largest = {v.name: v for v in sorted(self.own.variables, key=lambda v: v.size)}
        for v in largest.values():  # every call's param0
            if v.space != "param":
                raise UnknownPtx(f"a variable in {v.space} memory: {v.name}")
            lines.append(f"    alignas(16) char {name_of(v.name)}[{v.size}];")
        starts = True  # a new counter: after a label, a branch, or something with a guard
        for item in self.own.body:
            if isinstance(item, Label):
                lines.append(f"{name_of(item.name)}:;")
                starts = True
                continue
            count = ""
            apart = bool(item.guard) and not item.opcode.startswith("bra")
            if starts or apart:
                count = self.unit.count() + " "
            self.unit.counters[-1].append(item.line)
            lines.append(self.line(item, count, apart))
            starts = bool(item.guard) or item.opcode.startswith("br")
        return "\n".join([*lines, "}\n\n"])

    def line(self, item: Instruction, count: str, counts_inside: bool) -> str:
        done = self.statements.of(item).replace("LINE", str(item.line))
        if not item.guard:
            return f"    {count}{done}"
        condition = re.sub(r"%[\w$]+", lambda found: variable_of(found[0]), item.guard)
        if counts_inside:
            return f"    if ({condition}) {{ {count}{done} }}"
        return f"    {count}if ({condition}) {{ {done} }}"

"""Reads PTX into functions of instructions; what it does not know is an error.

Source: Parallel Thread Execution ISA, sections 4 (syntax), 5 (state spaces), 7 (functions).
"""

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass, field


class UnknownPtx(ValueError):
    """Text that this reader was not made for; the message names it and its line."""


@dataclass(frozen=True)
class Variable:
    """A parameter, or shared, constant or local memory with a name."""

    name: str
    space: str
    size: int  # 0: as much as the launch asks for
    alignment: int
    values: bytes = b""


@dataclass(frozen=True)
class Instruction:
    """One line; ``source`` is the file and line of what was compiled, outermost caller last."""

    line: int
    guard: str  # a predicate, after a ! where it must be false; empty where there is none
    opcode: str
    operands: tuple[str, ...]
    source: tuple[tuple[int, int], ...] = ()
    used: int = -1  # of a load, the bytes that anybody looks at, a bit for each


@dataclass(frozen=True)
class Label:
    name: str


@dataclass
class Function:
    """An entry or a function that is called."""

    name: str
    is_entry: bool
    parameters: list[Variable] = field(default_factory=list)
    registers: dict[str, str] = field(default_factory=dict)  # type by name
    variables: list[Variable] = field(default_factory=list)
    body: list[Instruction | Label] = field(default_factory=list)
    tables: dict[str, list[str]] = field(default_factory=dict)  # labels, for brx.idx


@dataclass
class Module:
    target: str = ""
    files: dict[int, str] = field(default_factory=dict)
    variables: list[Variable] = field(default_factory=list)
    functions: list[Function] = field(default_factory=list)


COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
FILE = re.compile(r'\.file\s+(\d+)\s+"([^"]*)"')
LOCATION = re.compile(r"\.loc\s+(\d+)\s+(\d+)\s+\d+(?:.*inlined_at\s+(\d+)\s+(\d+))?")
LINE_DIRECTIVES = (".version", ".target", ".address_size", ".file", ".loc", ".section")
# What tells ptxas how to allocate, and nothing about the result.
HINTS = re.compile(r"\.(?:maxntid|minnctapersm|reqntid|maxnreg)\s+[\d, ]+")
HEADER = re.compile(
    r"(?:\.visible\s+|\.weak\s+|\.extern\s+)*\.(entry|func)\s+([\w$]+)\s*", re.DOTALL
)
VARIABLE = re.compile(
    r"(?:\.visible\s+|\.extern\s+|\.weak\s+)*\.(param|shared|const|local|global)"
    r"(?:\s+\.align\s+(\d+))?\s+\.(\w+)(?:\s+\.ptr(?:\s+\.global)?(?:\s+\.align\s+\d+)?)?"
    r"\s+([\w$]+)(?:\[(\d*)\])?(?:\s*=\s*\{([^}]*)\})?\s*"
)
USED_BYTES = re.compile(r'"used_bytes_mask\s+(\w+)"')
REGISTER = re.compile(r"\.reg\s+\.(\w+)\s+(.*)", re.DOTALL)
INSTRUCTION = re.compile(r"(?:@(!?%[\w$]+)\s+)?([a-z][\w.:]*)\s*(.*)", re.DOTALL)
NAME = re.compile(r"(?<![\w$%])%?[A-Za-z_$][\w$]*")
SIZES = {"pred": 1, "8": 1, "16": 2, "32": 4, "64": 8}


def size_of(kind: str) -> int:
    """Bytes of a type such as b32 or pred."""
    return SIZES[kind.lstrip("bsuf")]


def parse(text: str) -> Module:
    """A module of PTX.

    Raises:
        UnknownPtx: it has something that no rule here describes.
    """
    reader = _Reader(COMMENT.sub(lambda found: "\n" * found[0].count("\n"), text))
    reader.module_level()
    return reader.module


def variable(text: str, line: int) -> Variable:
    """Of a declaration."""
    found = VARIABLE.fullmatch(text.strip())
    if found is None:
        raise UnknownPtx(f"line {line}: a declaration: {text.strip()[:120]!r}")
    space, alignment, kind, name, count, values = found.groups()
    size = size_of(kind) * (1 if count is None else int(count or 0))
    content = b""
    if values is not None:
        width = size_of(kind)
        numbers = [int(value, 0) for value in values.split(",")]
        content = b"".join(number.to_bytes(width, "little") for number in numbers)
    return Variable(name, space, size, int(alignment or size_of(kind)), content)


class _Reader:
    def __init__(self, text: str):
        self.text, self.at, self.line = text, 0, 1
        self.module = Module()
        self.used = -1

    def module_level(self) -> None:
        while self.skip_space():
            if self.directive():
                continue
            header = HEADER.match(self.text, self.at)
            if header:
                self.function(header)
            else:
                self.module.variables.append(variable(self.statement(), self.line))

    def directive(self) -> bool:
        """One that ends with its line; whether there was one."""
        end = self.text.find("\n", self.at)
        line = self.text[self.at : end if end >= 0 else len(self.text)]
        name = line.split(maxsplit=1)[0]
        if name not in LINE_DIRECTIVES:
            return False
        if name == ".section":  # debug information, to the end of it
            self.at = len(self.text)
            return True
        if name == ".target":
            self.module.target = line.split()[1].rstrip(",")
        if found := FILE.match(line):
            self.module.files[int(found[1])] = found[2]
        if found := LOCATION.match(line):
            self.located(tuple(int(part) for part in found.groups() if part is not None))
        self.advance(len(line))
        return True

    def located(self, numbers: tuple[int, ...]) -> None:
        """The chain of callers of what comes next, told from the callers before it."""
        here = (numbers[0], numbers[1])
        if len(numbers) == 2:
            self.chains, self.source = {here: (here,)}, (here,)
            return
        caller = (numbers[2], numbers[3])
        self.source = (here, *self.chains.get(caller, (caller,)))
        self.chains[here] = self.source

    def function(self, header: re.Match[str]) -> None:
        self.advance(len(header[0]))
        found = Function(header[2], header[1] == "entry")
        self.chains: dict[tuple[int, int], tuple[tuple[int, int], ...]] = {}
        self.source: tuple[tuple[int, int], ...] = ()
        if self.text[self.at] == "(":
            end = self.text.index(")", self.at)
            inside = self.text[self.at + 1 : end].strip()
            found.parameters = [variable(p, self.line) for p in inside.split(",") if p.strip()]
            self.advance(end + 1 - self.at)
        self.skip_space()
        while hint := HINTS.match(self.text, self.at):
            self.advance(len(hint[0]))
            self.skip_space()
        if self.text[self.at] == ";":  # declared before it is called
            self.advance(1)
            return
        self.module.functions.append(found)
        self.body(found)

    def body(self, function: Function) -> None:
        """Between braces; inner braces are scopes, whose registers hide outer ones."""
        scopes: list[dict[str, str]] = []
        count = 0
        while self.skip_space():
            if self.directive():
                continue
            if self.text[self.at] == "{":
                self.advance(1)
                count += 1
                scopes.append({})
            elif self.text[self.at] == "}":
                self.advance(1)
                scopes.pop()
                if not scopes:
                    return
            elif label := re.match(r"([\w$]+):", self.text[self.at : self.at + 200]):
                self.advance(len(label[0]))
                function.body.append(Label(label[1]))
            else:
                self.one(function, scopes, count)

    def one(self, function: Function, scopes: list[dict[str, str]], count: int) -> None:
        line, text = self.line, self.statement().strip()
        if not text:
            return
        if text.startswith(".pragma"):
            if found := USED_BYTES.search(text):
                self.used = int(found[1], 0)
            return
        if text.startswith(".reg"):
            kind, names = REGISTER.fullmatch(text).groups()  # type: ignore[union-attr]
            for name in registers(names):
                own = name if len(scopes) == 1 else f"%{name.lstrip('%')}_{count}"
                scopes[-1][name] = own
                function.registers[own] = kind
        elif text.startswith(".branchtargets"):
            label = function.body.pop()
            assert isinstance(label, Label)
            function.tables[label.name] = (
                text.removeprefix(".branchtargets").replace(",", " ").split()
            )
        elif text.startswith("."):
            function.variables.append(variable(text, line))
        else:
            found = instruction(text, line, scopes, self.source)
            function.body.append(dataclasses.replace(found, used=self.used))
            self.used = -1

    def statement(self) -> str:
        """To the next semicolon."""
        end = self.text.find(";", self.at)
        if end < 0:
            raise UnknownPtx(f"line {self.line}: {self.text[self.at : self.at + 80]!r}")
        text = self.text[self.at : end]
        self.advance(end + 1 - self.at)
        return text

    def skip_space(self) -> bool:
        found = re.compile(r"\s*").match(self.text, self.at)
        assert found is not None
        self.advance(len(found[0]))
        return self.at < len(self.text)

    def advance(self, count: int) -> None:
        self.line += self.text.count("\n", self.at, self.at + count)
        self.at += count


def registers(names: str) -> Iterator[str]:
    """Of a declaration: %a, or %r<3> for %r0 to %r2; in an inner scope also without a sign."""
    for name in names.split(","):
        found = re.fullmatch(r"(%?[\w$]+)(?:<(\d+)>)?", name.strip())
        if found is None:
            raise UnknownPtx(f"a register: {name.strip()!r}")
        yield from (
            [found[1]] if found[2] is None else (f"{found[1]}{i}" for i in range(int(found[2])))
        )


def instruction(
    text: str, line: int, scopes: list[dict[str, str]], source: tuple[tuple[int, int], ...]
) -> Instruction:
    """Of a statement, its registers renamed to those of the innermost scope."""
    found = INSTRUCTION.fullmatch(text)
    if found is None:
        raise UnknownPtx(f"line {line}: {text[:120]!r}")

    def own(name: re.Match[str]) -> str:
        return next((scope[name[0]] for scope in reversed(scopes) if name[0] in scope), name[0])

    guard, opcode, operands = found.groups()
    renamed = NAME.sub(own, operands)
    return Instruction(line, NAME.sub(own, guard or ""), opcode, tuple(split(renamed)), source)


def split(operands: str) -> Iterator[str]:
    """At commas that are in no brackets."""
    for part in re.findall(r"\{[^}]*\}|\[[^\]]*\]|\([^)]*\)|[^,\s]+", operands):
        yield re.sub(r"\s+", "", part)

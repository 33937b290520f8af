"""An instruction of PTX as a statement of C++, by the tables of opcodes.py."""

import hashlib
import re

from ptx import opcodes
from ptx.grammar import Function, Instruction, UnknownPtx, size_of

SPECIAL = {
    "%tid.x": "ptx_thread.tid",
    "%ctaid.x": "ptx_thread.ctaid",
    "%ntid.x": "ptx_thread.ntid",
    "%nctaid.x": "ptx_thread.nctaid",
    "%laneid": "(ptx_thread.tid % 32)",
    "WARP_SZ": "32u",
}
UNUSED_AXES = re.compile(r"%(tid|ctaid)\.[yz]")
POISON = {
    "pred": "true",
    "f32": "bits<float>(0xFFB5A5A5u)",
    "f64": "bits<double>(0xFFF5A5A5A5A5A5A5ull)",
}


class Statements:
    """Of one function; ``symbols`` are the addresses of what has a name, as expressions."""

    def __init__(self, function: Function, symbols: dict[str, str]):
        self.own, self.symbols = function, symbols
        # What is passed to a function that is called.
        self.passed = {v.name for v in function.variables}

    def of(self, item: Instruction) -> str:
        """LINE in it stands for the line of PTX.

        Raises:
            UnknownPtx: no table has it.
        """
        opcode, operands = item.opcode, item.operands
        if opcode in opcodes.STATEMENTS:
            return opcodes.STATEMENTS[opcode].format(*(self.value(o, "u32") for o in operands))
        if memory := opcodes.MEMORY.fullmatch(opcode):
            return self.access(item, *memory.groups())
        if opcode.startswith("mov.") and any(o.startswith("{") for o in operands):
            return self.packed(item)
        if opcode in SPECIAL_FORMS:
            return SPECIAL_FORMS[opcode](self, *operands)
        row = opcodes.TABLE.get(opcode)
        if row is None:
            raise UnknownPtx(f"line {item.line}: no table has {opcode}")
        if opcode.startswith("atom."):
            return self.atomic(item, row)
        return self.by_table(item, row)

    def by_table(self, item: Instruction, row: opcodes.Row) -> str:
        target, *sources = item.operands
        if len(sources) != len(row.arguments):
            raise UnknownPtx(f"line {item.line}: {item.opcode} with {len(sources)} arguments")
        given = {"T": row.kind}
        for name, source, kind in zip("abcd", sources, row.arguments, strict=False):
            given[name] = self.value(source, kind)
        expression = re.sub(r"\b[abcdT]\b", lambda found: given[found[0]], row.expression)
        return self.put(target, row.result, expression)

    def put(self, target: str, kind: str, expression: str) -> str:
        """A result into a register, over all of its bits."""
        if target == "_":
            return f"(void)({expression});"
        register = self.own.registers[target]
        if size_of(kind) > size_of(register):
            raise UnknownPtx(f"{kind} into {target}, which has fewer bits")
        if size_of(kind) == size_of(register) and kind in opcodes.FLOATS.split(","):
            if kind != register:
                expression = f"__builtin_bit_cast({register}, {kind}({expression}))"
        elif register in opcodes.FLOATS.split(","):
            expression = f"__builtin_bit_cast({register}, {unsigned(register)}({expression}))"
        elif kind != "pred":  # a narrower integer is extended by its sign
            expression = f"{kind}({expression})"
        return f"{variable_of(target)} = {expression};"

    def atomic(self, item: Instruction, row: opcodes.Row) -> str:
        target, place, given = item.operands
        space = item.opcode.split(".")[1]
        order = "ACQUIRE_RELEASE" if "acq_rel" in item.opcode else "RELAXED"
        kind = row.result
        left = f"[&]({kind} old) {{ return {kind}({row.expression}); }}"
        done = f"atomic<{kind}>({space}, {order}, {self.address(place)}, LINE, {left})"
        return f"{{ {kind} a = {self.value(given, kind)}; {self.put(target, kind, done)} }}"

    def access(self, item: Instruction, stem: str, vector: str | None, kind: str) -> str:
        is_load = stem.startswith("ld")
        how = (opcodes.LOADS if is_load else opcodes.STORES).get(stem)
        if how is None:
            raise UnknownPtx(f"line {item.line}: no table has {stem} (of {item.opcode})")
        place = next(o for o in item.operands if o.startswith("["))
        values = next(o for o in item.operands if not o.startswith("["))
        names = values.strip("{}").split(",")
        if len(names) != (opcodes.VECTORS[vector] if vector else 1):
            raise UnknownPtx(f"line {item.line}: {item.opcode} of {len(names)} registers")
        if self.is_passed(place):
            how = how.replace("param", "frame")
        size = int(kind[1:]) // 8
        done = f"u64 at = aligned({self.address(place)}, {size * len(names)}, LINE);"
        for i, name in enumerate(names):
            at = f"at + {size * i}"
            if is_load:
                # All of a vector is read before its address may be overwritten.
                is_used = item.used >> (size * i) & (2**size - 1)
                loaded = f"load<{kind}>({how}, {at}, LINE)" if is_used else poison(kind)
                done += f" {kind} x{i} = {loaded};"
            else:
                done += f" store<{kind}>({how}, {at}, {self.value(name, kind)}, LINE);"
        if is_load:
            done += "".join(f" {self.put(n, kind, f'x{i}')}" for i, n in enumerate(names))
        return f"{{ {done} }}"

    def is_passed(self, place: str) -> bool:
        """Whether it is a parameter of a function that is called, here or by this one."""
        name = re.match(r"\[([\w$]+)", place)
        own = [] if self.own.is_entry else [p.name for p in self.own.parameters]
        return name is not None and (name[1] in self.passed or name[1] in own)

    def packed(self, item: Instruction) -> str:
        """A register of several, the first in the low bits; or several of one."""
        target, source = item.operands
        whole = int(item.opcode[-2:])
        names = (source if source.startswith("{") else target).strip("{}").split(",")
        part = whole // len(names)
        if source.startswith("{"):
            values = [
                f"u64({self.value(n, f'b{part}')}) << {part * i}" for i, n in enumerate(names)
            ]
            return self.put(target, f"b{whole}", " | ".join(values))
        parts = [self.put(n, f"b{part}", f"whole >> {part * i}") for i, n in enumerate(names)]
        return f"{{ u64 whole = {self.value(source, f'b{whole}')}; {' '.join(parts)} }}"

    def address(self, operand: str) -> str:
        inside = operand.strip("[]")
        base, sign, offset = re.fullmatch(r"([%\w$]+)(?:([+-])(-?\w+))?", inside).groups()  # type: ignore[union-attr]
        start = f"u64({variable_of(base)})" if base.startswith("%") else self.symbols[base]
        return f"({start} {sign} u64({offset}))" if sign else start

    def read(self, register: str, kind: str) -> str:
        """The low bits of a register, as a type."""
        own, name = self.own.registers[register], variable_of(register)
        if size_of(kind) > size_of(own):
            raise UnknownPtx(f"{kind} of {register}, which has fewer bits")
        if kind == own:
            return name
        floats = opcodes.FLOATS.split(",")
        if kind in floats or own in floats:
            whole = f"__builtin_bit_cast({unsigned(own)}, {name})" if own in floats else name
            return f"__builtin_bit_cast({kind}, {unsigned(kind)}({whole}))"
        return f"{kind}({name})"

    def value(self, operand: str, kind: str) -> str:
        """An operand as a type."""
        if operand in SPECIAL:
            return f"{kind}({SPECIAL[operand]})"
        if UNUSED_AXES.fullmatch(operand):
            return f"{kind}(0)"
        if operand.startswith("%"):
            return self.read(operand, kind)
        if operand.startswith("!%"):
            return f"!{variable_of(operand[1:])}"
        if found := re.fullmatch(r"0[fFdD]((?:[0-9A-Fa-f]{8}){1,2})", operand):
            return f"__builtin_bit_cast({kind}, b{4 * len(found[1])}(0x{found[1]}ull))"
        if re.fullmatch(r"-?(0x[0-9A-Fa-f]+|\d+)U?", operand):
            number = int(operand.rstrip("U"), 0)
            return f"{kind}({number % 2**64}ull)" if kind != "pred" else str(bool(number)).lower()
        return f"{kind}({self.symbols[operand]})" if operand in self.symbols else name_of(operand)

    # Forms whose operands are like no other's.

    def shuffle(self, how: str, target: str, *sources: str) -> str:
        value, _, inside = target.partition("|")
        a, change, limits, mask = (self.value(s, "u32") for s in sources)
        told = self.put(inside, "pred", "inside") if inside else ""
        done = f"shuffled({how}, {a}, {change}, {limits}, {mask}, LINE, inside)"
        return f"{{ bool inside; u32 x = {done}; {self.put(value, 'u32', 'x')} {told} }}"

    def vote(self, target: str, number: str, mine: str) -> str:
        done = f"ptx_block_vote({self.value(mine, 'pred')}, LINE)"
        return f"all_lanes(~{self.value(number, 'u32')}, LINE); {self.put(target, 'pred', done)}"

    def call(self, callee: str, given: str = "()") -> str:
        names = [name_of(name) for name in given.strip("()").split(",") if name]
        return f"{name_of(callee)}({', '.join(names)});"

    def branch_by_table(self, index: str, table: str) -> str:
        cases = "".join(
            f" case {i}: goto {name_of(label)};" for i, label in enumerate(self.own.tables[table])
        )
        beyond = 'default: ptx_stop(LINE, "a branch beyond its table");'
        return f"switch ({self.value(index, 'u32')}) {{{cases} {beyond} }}"

    def load_matrices(self, targets: str, place: str, transposed: str = "false") -> str:
        names = targets.strip("{}").split(",")
        puts = " ".join(self.put(n, "u32", f"held[{i}]") for i, n in enumerate(names))
        done = f"load_matrices(held, {transposed}, {self.address(place)}, LINE);"
        return f"{{ u32 held[4]; {done} {puts} }}"

    def load_transposed(self, targets: str, place: str) -> str:
        return self.load_matrices(targets, place, "true")

    def store_matrices(self, place: str, sources: str) -> str:
        values = ", ".join(self.value(n, "u32") for n in sources.strip("{}").split(","))
        return (
            f"{{ u32 held[4] = {{{values}}}; store_matrices(held, {self.address(place)}, LINE); }}"
        )


SPECIAL_FORMS = {
    "shfl.sync.bfly.b32": lambda body, *operands: body.shuffle("BUTTERFLY", *operands),
    "shfl.sync.idx.b32": lambda body, *operands: body.shuffle("INDEXED", *operands),
    "bar.red.or.pred": Statements.vote,
    "brx.idx": Statements.branch_by_table,
    "call.uni": Statements.call,
    "ldmatrix.sync.aligned.m8n8.x4.shared.b16": Statements.load_matrices,
    "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16": Statements.load_transposed,
    "stmatrix.sync.aligned.m8n8.x4.shared.b16": Statements.store_matrices,
}


def unsigned(kind: str) -> str:
    """The integer with as many bits."""
    return f"b{8 * size_of(kind)}"


def poison(kind: str) -> str:
    """What nobody should look at."""
    return POISON.get(kind, f"{kind}(0xA5A5A5A5A5A5A5A5ull)")


def variable_of(register: str) -> str:
    if not register.startswith("%"):
        raise UnknownPtx(f"a register was expected, not {register}")
    return f"R{register[1:]}"


def name_of(text: str) -> str:
    """Long ones are cut, with what tells them apart; g++ takes a $ as a letter."""
    if len(text) <= 200:
        return text
    return f"{text[:60]}_{hashlib.sha256(text.encode()).hexdigest()[:16]}"

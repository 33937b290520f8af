"""What each instruction does: a row for its forms, with an expression of C++ for the result.

A form that is not in a table is not known, and translating it is an error: a modifier may change
a rounding or an order. `add.f32` without `.rn`, for one, is not here, since ptxas may contract it.

A row: forms (braces expand as a shell's do), type of the result, types of the arguments a, b, ...;
T is the type that the form ends with, W twice as wide, D and S those of a conversion. Functions
are those of values.h.

Source: Parallel Thread Execution ISA, section 9.7.
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

WIDE = {"s16": "s32", "u16": "u32", "s32": "s64", "u32": "u64"}
INTEGERS = "s16,u16,s32,u32,s64,u64"
BITS = "b16,b32,b64"
FLOATS = "f32,f64"
MOVED = f"{BITS},{INTEGERS},{FLOATS}"
ORDER = {"lt": "<", "le": "<=", "gt": ">", "ge": ">="}

ROWS = [
    # Integers.
    (f"add.{{{INTEGERS}}}", "T", "T T", "a + b"),
    (f"sub.{{{INTEGERS}}}", "T", "T T", "a - b"),
    (f"mul.lo.{{{INTEGERS}}}", "T", "T T", "a * b"),
    ("mul.wide.{s16,u16,s32,u32}", "W", "T T", "W(a) * W(b)"),
    ("mul.hi.{s32,u32,s64,u64}", "T", "T T", "high_product(a, b)"),
    (f"mad.lo.{{{INTEGERS}}}", "T", "T T T", "a * b + c"),
    ("mad.wide.{s16,u16,s32,u32}", "W", "T T W", "W(a) * W(b) + c"),
    (f"div.{{{INTEGERS}}}", "T", "T T", "quotient(a, b, LINE)"),
    (f"rem.{{{INTEGERS}}}", "T", "T T", "remainder(a, b, LINE)"),
    ("abs.{s16,s32,s64}", "T", "T", "a < 0 ? T(-a) : a"),
    ("neg.{s16,s32,s64}", "T", "T", "-a"),
    (f"min.{{{INTEGERS}}}", "T", "T T", "b < a ? b : a"),
    (f"max.{{{INTEGERS}}}", "T", "T T", "a < b ? b : a"),
    (f"and.{{pred,{BITS}}}", "T", "T T", "a & b"),
    (f"or.{{pred,{BITS}}}", "T", "T T", "a | b"),
    (f"xor.{{pred,{BITS}}}", "T", "T T", "a ^ b"),
    (f"not.{{{BITS}}}", "T", "T", "~a"),
    ("not.pred", "T", "T", "!a"),
    (f"shl.{{{BITS}}}", "T", "T u32", "shifted_left(a, b)"),
    (f"shr.{{{BITS},{INTEGERS}}}", "T", "T u32", "shifted_right(a, b)"),
    ("shf.r.wrap.b32", "T", "T T u32", "funnel_right(a, b, c & 31)"),
    ("shf.l.wrap.b32", "T", "T T u32", "funnel_left(a, b, c & 31)"),
    ("bfe.{u32,s32,u64,s64}", "T", "T u32 u32", "field(a, b, c)"),
    ("bfi.{b32,b64}", "T", "T T u32 u32", "inserted(a, b, c, d)"),
    ("prmt.b32", "T", "T T u32", "permuted(a, b, c)"),
    ("popc.{b32,b64}", "u32", "T", "__builtin_popcountll(a)"),
    # Floating point: round to nearest even, subnormal numbers kept, one nan.
    (f"add.rn.{{{FLOATS}}}", "T", "T T", "canonical(a + b)"),
    (f"sub.rn.{{{FLOATS}}}", "T", "T T", "canonical(a - b)"),
    (f"mul.rn.{{{FLOATS}}}", "T", "T T", "canonical(a * b)"),
    ("add.rn.f32x2", "b64", "b64 b64", "pairwise(a, b, [](float x, float y) { return x + y; })"),
    ("sub.rn.f32x2", "b64", "b64 b64", "pairwise(a, b, [](float x, float y) { return x - y; })"),
    ("mul.rn.f32x2", "b64", "b64 b64", "pairwise(a, b, [](float x, float y) { return x * y; })"),
    (f"fma.rn.{{{FLOATS}}}", "T", "T T T", "canonical(std::fma(a, b, c))"),
    (f"div.rn.{{{FLOATS}}}", "T", "T T", "canonical(a / b)"),
    (f"rcp.rn.{{{FLOATS}}}", "T", "T", "canonical(T(1) / a)"),
    (f"sqrt.rn.{{{FLOATS}}}", "T", "T", "canonical(std::sqrt(a))"),
    (f"neg.{{{FLOATS}}}", "T", "T", "-a"),
    (f"abs.{{{FLOATS}}}", "T", "T", "std::fabs(a)"),
    ("abs.f16x2", "b32", "b32", "a & 0x7FFF7FFFu"),
    (f"min.{{{FLOATS}}}", "T", "T T", "least(a, b)"),
    (f"max.{{{FLOATS}}}", "T", "T T", "most(a, b)"),
    # Comparisons; those that end with u are true of a nan.
    (f"setp.eq.{{{BITS},{INTEGERS},{FLOATS}}}", "pred", "T T", "a == b"),
    (f"setp.ne.{{{BITS},{INTEGERS}}}", "pred", "T T", "a != b"),
    *((f"setp.{n}.{{{INTEGERS},{FLOATS}}}", "pred", "T T", f"a {o} b") for n, o in ORDER.items()),
    (f"setp.ne.{{{FLOATS}}}", "pred", "T T", "a < b || a > b"),
    (f"setp.equ.{{{FLOATS}}}", "pred", "T T", "!(a < b || a > b)"),
    (f"setp.neu.{{{FLOATS}}}", "pred", "T T", "!(a == b)"),
    (f"setp.ltu.{{{FLOATS}}}", "pred", "T T", "!(a >= b)"),
    (f"setp.leu.{{{FLOATS}}}", "pred", "T T", "!(a > b)"),
    (f"setp.gtu.{{{FLOATS}}}", "pred", "T T", "!(a <= b)"),
    (f"setp.geu.{{{FLOATS}}}", "pred", "T T", "!(a < b)"),
    (f"setp.num.{{{FLOATS}}}", "pred", "T T", "a == a && b == b"),
    (f"setp.nan.{{{FLOATS}}}", "pred", "T T", "a != a || b != b"),
    (f"selp.{{{MOVED}}}", "T", "T T pred", "c ? a : b"),
    (f"mov.{{pred,{MOVED}}}", "T", "T", "a"),
    # Conversions; those between integers are below.
    ("cvt.f64.f32", "D", "S", "a"),
    ("cvt.rn.f32.f64", "D", "S", "canonical(float(a))"),
    ("cvt.rn.{f32,f64}.{s32,u32,s64,u64}", "D", "S", "D(a)"),
    ("cvt.{rzi,rmi,rpi,rni}.{s32,u32,s64,u64}.{f32,f64}", "D", "S", "integer<D>(ROUND(a))"),
    ("cvt.{rzi,rmi,rpi,rni}.{f32.f32,f64.f64}", "D", "S", "ROUND(a)"),
    (f"cvt.{{{FLOATS}}}.f16", "D", "b16", "from_half(a)"),
    (f"cvt.{{{FLOATS}}}.bf16", "D", "b16", "from_bfloat(a)"),
    (f"cvt.rn.f16.{{{FLOATS}}}", "b16", "S", "to_half(a)"),
    (f"cvt.rn.bf16.{{{FLOATS}}}", "b16", "S", "to_bfloat(a)"),
    ("cvt.rn.f16x2.f32", "b32", "f32 f32", "u32(to_half(a)) << 16 | to_half(b)"),
    ("cvt.rn.bf16x2.f32", "b32", "f32 f32", "u32(to_bfloat(a)) << 16 | to_bfloat(b)"),
    # An address of a space is its generic address here, but for shared memory.
    ("cvta.{global,const,param}.u64", "T", "T", "a"),
    ("cvta.to.{global,const,param}.u64", "T", "T", "a"),
    ("cvta.shared.u64", "T", "T", "a + SHARED_WINDOW"),
    ("cvta.to.shared.u64", "T", "T", "a - SHARED_WINDOW"),
    # Atomic operations: what is left in memory, of what was there (old).
    ("atom.{global,shared}.add.{u32,s32,u64}", "T", "T", "old + a"),
    ("atom.global.{gpu.acq_rel,acq_rel.gpu}.add.u32", "T", "T", "old + a"),
    ("atom.{global,shared}.inc.u32", "T", "T", "old >= a ? 0 : old + 1"),
    ("atom.{global,shared}.or.b32", "T", "T", "old | a"),
    ("atom.{global,shared}.min.{s32,u32}", "T", "T", "a < old ? a : old"),
    ("atom.{global,shared}.max.{s32,u32}", "T", "T", "old < a ? a : old"),
    # What the lanes of a warp do together; every lane takes part.
    ("redux.sync.add.{s32,u32}", "T", "T u32", "reduced(a, b, LINE, added<T>)"),
    ("redux.sync.max.{s32,u32}", "T", "T u32", "reduced(a, b, LINE, larger<T>)"),
    ("redux.sync.min.{s32,u32}", "T", "T u32", "reduced(a, b, LINE, smaller<T>)"),
]  # fmt: skip
ROUNDINGS = {"rzi": "std::trunc", "rmi": "std::floor", "rpi": "std::ceil", "rni": "std::nearbyint"}

# Statements whose operands are nothing but values and labels; {0} is the first of them.
STATEMENTS = {
    "bra": "goto {0};",
    "bra.uni": "goto {0};",
    "ret": "return;",
    "trap": "ptx_stop(LINE, \"trap\");",
    "bar.sync": "block_barrier({0}, LINE);",
    "barrier.sync": "block_barrier({0}, LINE);",
    "bar.warp.sync": "warp_barrier({0}, LINE);",
    "membar.gl": "ptx_fence(LINE);",
    "fence.acq_rel.gpu": "ptx_fence(LINE);",
    "griddepcontrol.wait": "ptx_wait_for_grids(LINE);",
    "griddepcontrol.launch_dependents": "ptx_launch_dependents(LINE);",
    "prefetch.global.L2": ";",  # an address that nobody may read is no error, either
}  # fmt: skip

# By what stands before vector and type: state space, and where the value comes from or goes to.
LOADS = {
    "ld": "generic, CACHED",
    "ld.global": "global, CACHED",
    "ld.global.ca": "global, CACHED",
    "ld.global.cg": "global, AT_L2",
    "ld.global.cs": "global, CACHED",
    "ld.volatile.global": "global, AT_L2",
    "ld.shared": "shared, CACHED",
    "ld.shared::cta": "shared, CACHED",  # of the block itself: there are no clusters here
    "ld.param": "param, CACHED",
    "ld.const": "constant, CACHED",
}
STORES = {
    "st": "generic",
    "st.global": "global",
    "st.global.cg": "global",
    "st.global.cs": "global",
    "st.shared": "shared",
    "st.shared::cta": "shared",
    "st.param": "param",
}
VECTORS = {"v2": 2, "v4": 4, "v8": 8}
MEMORY = re.compile(r"((?:ld|st)(?:\.(?!v\d|[busf]\d+$)[\w:]+)*)(?:\.(v\d))?\.([busf]\d+)")


@dataclass(frozen=True)
class Row:
    """The types are names without T, W, D and S."""

    result: str
    arguments: tuple[str, ...]
    expression: str
    kind: str  # what T is


def expanded(forms: str) -> Iterator[str]:
    """Every text that braces allow."""
    parts = re.split(r"\{([^}]*)\}", forms)
    for choice in itertools.product(
        *(part.split(",") if i % 2 else [part] for i, part in enumerate(parts))
    ):
        yield "".join(choice)


def row(form: str, result: str, arguments: str, expression: str) -> Row:
    """Of one form."""
    kinds = form.split(".")
    names = {"T": kinds[-1], "W": WIDE.get(kinds[-1], ""), "D": kinds[-2], "S": kinds[-1]}

    def named(name: str) -> str:
        return names.get(name, name)

    for letter in "WDS":
        expression = re.sub(rf"\b{letter}\b", names[letter], expression)
    if "ROUND" in expression:
        expression = expression.replace("ROUND", ROUNDINGS[kinds[1]])
    return Row(named(result), tuple(map(named, arguments.split())), expression, kinds[-1])


def _table() -> dict[str, Row]:
    rows = {form: row(form, *rest) for forms, *rest in ROWS for form in expanded(forms)}
    kinds = [*INTEGERS.split(","), "s8", "u8"]
    for to, source in itertools.product(kinds, repeat=2):
        rows[f"cvt.{to}.{source}"] = Row(to, (source,), f"{to}(a)", source)
    return rows


TABLE = _table()

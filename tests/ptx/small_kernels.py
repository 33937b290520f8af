"""Kernels of a few lines, run over seeds in a weak memory."""

import struct

import torch

from ptx import machine

SEEDS = range(40)
HEAD = ".version 8.7\n.target sm_90\n.address_size 64\n"
START = """
.reg .pred %p, %q; .reg .b32 %a, %b, %c, %t, %block; .reg .b64 %data, %flag, %out, %at, %own;
mov.u32 %t, %tid.x;
mov.u32 %block, %ctaid.x;
ld.param.u64 %data, [data];
ld.param.u64 %out, [out];
add.s64 %flag, %data, 128;
mul.wide.u32 %own, %t, 4;
"""


def kernel(body: str, shared: int = 0) -> machine.Library:
    """An entry with a tensor of 64 integers, and one for results."""
    memory = f".shared .align 8 .b8 room[{shared}];\n" if shared else ""
    head = ".visible .entry f(.param .u64 data, .param .u64 out)\n{\n"
    return machine.load(f"{HEAD}{memory}{head}{START}{body}\nret;\n}}\n")


def launch(library, data, out, blocks, threads):
    pointers = struct.pack("QQ", data.data_ptr(), out.data_ptr())
    library.launch("f", pointers, blocks, threads)


def outcomes(library, data, out, blocks=1, threads=1, fresh=(), weakened=(), meant=()):
    """Errors and results over seeds."""
    errors, results = [], set()
    for seed in SEEDS:
        data.zero_()
        out.zero_()
        for tensor in fresh:
            tensor.view(torch.uint8).fill_(machine.POISON)
        machine.seed(seed)
        with machine.checked(weakened):
            for pair in meant:
                machine.mean(*pair)
            machine.allocations([data, out], fresh)
            try:
                launch(library, data, out, blocks, threads)
                results.add(tuple(out.tolist()))
            except machine.PtxError as error:
                errors.append(str(error))
    return errors, results


def line_of(library, text, which=0):
    """The line of PTX that has a text."""
    return [number for number, line in library.numbered() if text in line][which]


# Block 0 stores 7 and raises the flag by an atomic operation; block 1 loads what is there if the
# flag is up. Both sides have a fence.
PASSED_ON = """
setp.ne.u32 %p, %block, 0;
@%p bra READER;
st.global.u32 [%data], 7;
membar.gl;
atom.global.or.b32 %a, [%flag], 1;
ret;
READER:
ld.global.u32 %c, [%out+8];
atom.global.or.b32 %a, [%flag], 0;
membar.gl;
setp.eq.u32 %p, %a, 0;
@%p bra END;
ld.global.u32 %b, [%data];
add.u32 %b, %b, 1;
st.global.u32 [%out], %b;
END:
"""

# Each thread gives its number to the next but one warp through shared memory.
TURNED = """
mov.u32 %a, room;
shl.b32 %b, %t, 2;
add.u32 %a, %a, %b;
st.shared.u32 [%a], %t;
bar.sync 0;
xor.b32 %b, %b, 128;
ld.shared.u32 %c, [%b];
add.s64 %at, %out, %own;
st.global.u32 [%at], %c;
"""

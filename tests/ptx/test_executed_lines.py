"""What was executed of PTX is counted, and what was not is told by its place in the source."""

import struct

import pytest
import torch

from ptx import executed_lines, machine

# Line 3 of adamw.h is executed in one copy of two, line 5 in none.
TEXT = """
.version 8.7
.target sm_90
.address_size 64
.file 1 "somewhere/adamw.h"
.visible .entry f(.param .u64 out)
{
.reg .pred %p; .reg .b32 %t; .reg .b64 %out;
.loc 1 3 0
ld.param.u64 %out, [out];
setp.eq.u32 %p, 0, 0;
@%p bra END;
.loc 1 3 0
mov.u32 %t, 1;
.loc 1 5 0
mov.u32 %t, 2;
st.global.u32 [%out], %t;
END:
.loc 1 4 0
ret;
}
"""


@pytest.fixture
def kernels(tmp_path, monkeypatch):
    monkeypatch.setenv(executed_lines.FOLDER, str(tmp_path))
    monkeypatch.setattr(machine, "_all", [])
    library = machine.load.__wrapped__(TEXT, "cuda-ptx sm_90 f")
    library.launch("f", struct.pack("Q", torch.zeros(4).data_ptr()), 1, 1)
    executed_lines.leave()
    return executed_lines.summed(tmp_path)


def test_instructions_are_counted(kernels):
    (kernel,) = kernels.values()
    assert kernel.counts == (4, 7)
    first, last = executed_lines.report(kernels)
    assert first == "cuda-ptx sm_90 f: 4 of 7 instructions of PTX executed (57.1%)"
    assert last == "cuda-ptx sm_90: lines of source of which no copy was executed: 1 adamw.h:5"


def test_a_line_with_an_executed_copy_is_not_idle(kernels):
    assert executed_lines.never(kernels.values()) == {"adamw.h:5": 2}

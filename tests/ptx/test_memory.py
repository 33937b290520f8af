"""What the memory model, the search for races and the checks of accesses are for, one of each kind.

Each kernel here is wrong in one way, or right in the same way; the wrong one has to be found.
"""

import ctypes
import struct

import pytest
import torch

from ptx import machine
from ptx.small_kernels import PASSED_ON, SEEDS, TURNED, kernel, launch, line_of, outcomes


def test_a_message_with_fences_arrives(data, out):
    errors, results = outcomes(kernel(PASSED_ON), data, out, 2)
    assert not errors
    assert {found[0] for found in results} == {0, 8}  # before the flag, and after it


@pytest.mark.parametrize("fence", [0, 1])
def test_a_message_without_a_fence_is_a_race(data, out, fence):
    library = kernel(PASSED_ON)
    errors, _ = outcomes(library, data, out, 2, weakened=[line_of(library, "membar", fence)])
    store, load = line_of(library, "[%data], 7"), line_of(library, "%b, [%data]")
    assert errors
    assert all(f"line {load}: a race with the store of line {store}" in error for error in errors)


def test_without_the_first_fence_the_store_may_come_after_the_flag(data, out):
    library = kernel(PASSED_ON)
    store, load = line_of(library, "[%data], 7"), line_of(library, "%b, [%data]")
    how = {"weakened": [line_of(library, "membar", 0)], "meant": [(store, load)]}
    errors, results = outcomes(library, data, out, 2, **how)
    assert not errors and {found[0] for found in results} == {0, 1, 8}


# The reader has had the data in the first cache before: without its fence it may see that again.
CACHED = PASSED_ON.replace("ld.global.u32 %c, [%out+8]", "ld.global{} %c, [%data]")


@pytest.mark.parametrize(("way", "seen"), [(".u32", {0, 1, 8}), (".cg.u32", {0, 8})])
def test_the_first_cache_is_stale_until_a_fence(data, out, way, seen):
    text = CACHED.format(".u32").replace("ld.global.u32 %b", f"ld.global{way} %b")
    library = kernel(text)
    store = line_of(library, "[%data], 7")
    loads = [line_of(library, "%c, [%data]"), line_of(library, "%b, [%data]")]
    how = {"weakened": [line_of(library, "membar", 1)], "meant": [(store, load) for load in loads]}
    errors, results = outcomes(library, data, out, 2, **how)
    assert not errors and {found[0] for found in results} == seen


def test_shared_memory_with_a_barrier(data, out):
    errors, results = outcomes(kernel(TURNED, 256), data, out, 1, 64)
    assert not errors and results == {tuple(i ^ 32 for i in range(64))}


def test_shared_memory_without_a_barrier_is_a_race(data, out):
    library = kernel(TURNED, 256)
    errors, _ = outcomes(library, data, out, 1, 64, weakened=[line_of(library, "bar.sync")])
    assert len(errors) == len(SEEDS)  # a race, or a load before the store


@pytest.mark.parametrize("words", ["bar.warp.sync -1;", ""])
def test_lanes_that_talk_through_memory_need_a_barrier_of_their_warp(data, out, words):
    text = TURNED.replace("bar.sync 0;", words).replace("128", "4")
    errors, _ = outcomes(kernel(text, 256), data, out, 1, 32)
    assert bool(errors) != bool(words)


def test_a_barrier_of_a_warp_is_none_of_the_block(data, out):
    errors, _ = outcomes(
        kernel(TURNED.replace("bar.sync 0", "bar.warp.sync -1"), 256), data, out, 1, 64
    )
    assert errors


def test_a_shuffle_orders_no_memory(data, out):
    text = TURNED.replace("bar.sync 0;", "shfl.sync.bfly.b32 %c, %t, 1, 31, -1;").replace(
        "128", "4"
    )
    errors, _ = outcomes(kernel(text, 256), data, out, 1, 32)
    assert errors


def test_stores_of_two_threads_race(data, out):
    errors, _ = outcomes(kernel("st.global.u32 [%out], %block;"), data, out, 2, 1)
    assert all("a race with the store of line" in error for error in errors)
    assert len(errors) == len(SEEDS)


@pytest.mark.parametrize(("value", "races"), [("7", False), ("%t", True)])
def test_threads_of_a_block_may_store_the_same_at_once(data, out, value, races):
    errors, _ = outcomes(kernel(f"st.global.u32 [%out], {value};"), data, out, 1, 64)
    assert bool(errors) == races


WRONG = {
    "beyond an allocation": ("ld.global.u32 %a, [%data+256];", "outside of every allocation"),
    "before an allocation": ("st.global.u32 [%data+-4], %t;", "outside of every allocation"),
    "misaligned": ("ld.global.u32 %a, [%data+2];", "misaligned"),
    "a misaligned vector": ("ld.global.v2.u32 {%a, %b}, [%data+4];", "misaligned"),
    "never written": ("ld.global.u32 %a, [%data];", "nobody has written"),
    "beyond parameters": ("ld.param.u32 %a, [data+16];", "beyond the parameters"),
    "beyond shared memory": ("ld.shared.u32 %a, [room+64];", "beyond shared memory"),
    "unwritten shared memory": ("ld.shared.u32 %a, [room];", "nobody has written"),
    "trap": ("trap;", "trap"),
    "half a warp": ("shfl.sync.bfly.b32 %a, %t, 1, 31, 65535;", "less than a whole warp"),
    "another barrier": ("bar.sync 1;", "a barrier other than 0"),
    "division": ("div.u32 %a, %t, 0;", "a division without a result"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_access_is_found(data, out, name):
    body, reason = WRONG[name]
    errors, _ = outcomes(kernel(body, 64), data, out, fresh=[data])
    assert len(errors) == len(SEEDS) and all(reason in error for error in errors), errors[:1]


def test_freed_memory_is_no_allocation(data, out):
    library = kernel("ld.global.u32 %a, [%data];")
    freed = torch.zeros(64, dtype=torch.int32)
    with machine.checked():
        machine.allocations([data, out])  # not this one any more
        with pytest.raises(machine.PtxError, match="outside of every allocation"):
            launch(library, freed, out, 1, 1)


def test_what_was_stored_may_be_loaded(data, out):
    body = "st.global.u32 [%data], 5;\nld.global.u32 %a, [%data];\nst.global.u32 [%out], %a;"
    errors, results = outcomes(kernel(body), data, out, fresh=[data])
    assert not errors and {found[0] for found in results} == {5}


def test_a_barrier_that_not_all_reach(data, out):
    body = "setp.eq.u32 %p, %t, 0;\n@%p bra END;\nbar.sync 0;\nret;\nEND:\nbar.warp.sync -1;"
    errors, _ = outcomes(kernel(body), data, out, 1, 64)
    assert errors


# What a grid may do before it waits for the one before it, and what only after that.
WAITING = """
griddepcontrol.wait;
ld.global.u32 %a, [%data];
st.global.u32 [%out], %a;
"""


@pytest.mark.parametrize("waits", [True, False])
def test_a_dependent_grid_waits(data, out, waits):
    first = kernel("griddepcontrol.launch_dependents;\nst.global.u32 [%data], 3;")
    second = kernel(WAITING if waits else WAITING.replace("griddepcontrol.wait;", ""))
    pointers = struct.pack("QQ", data.data_ptr(), out.data_ptr())
    errors, results = [], set()
    for seed in SEEDS:
        data.zero_()
        machine.seed(seed)
        with machine.checked():
            machine.allocations([data, out])
            first.add("f", pointers, 1, 1)
            second.add("f", pointers, 1, 1)
            try:
                machine.run()
                results.add(int(out[0]))
            except machine.PtxError as error:
                errors.append(str(error))
    assert (not errors and results == {3}) if waits else any("a race" in e for e in errors)


def test_an_error_names_where_it_was(data, out):
    library = kernel("ld.global.u32 %a, [%data+2];")
    with pytest.raises(
        machine.PtxError, match=rf"f, line {line_of(library, 'data+2')}: .*thread 0"
    ):
        launch(library, data, out, 1, 1)


def test_the_machine_goes_on_after_an_error(data, out):
    wrong, right = kernel("bar.sync 0;\ntrap;"), kernel("bar.sync 0;\nst.global.u32 [%out], 4;")
    with pytest.raises(machine.PtxError):
        launch(wrong, data, out, 1, 64)
    launch(right, data, out, 1, 64)
    assert out[0] == 4 and ctypes.c_int32.from_address(out.data_ptr()).value == 4

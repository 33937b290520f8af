// Runs translated PTX: what a thread asks for (machine.h), and what the host asks for.
//
// An error of a kernel ends its launch: ptx_run returns its text.
#include "grid.h"

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

PTX_SHOWN PtxThread ptx_thread;
PtxThread ptx_thread = {};

PTX_SHOWN void ptx_stop(int line, const char* reason) {
    error = block->grid->name + ", line " + std::to_string(line) + ": " + reason + " (thread " +
            std::to_string(me) + " of block " + std::to_string(block->index) + ")";
    give_way(DONE, line);
}

namespace {

void stop_if(int line, const std::string& wrong) {
    if (!wrong.empty()) ptx_stop(line, wrong.c_str());
}

bool is_weakened(int line) { return is_checked() && weak::memory.weakened.count(line); }

// An access under the memory model; the address is that of the window where it is shared memory.
u64 checked_place(Space space, u64 address, u32 size, int line) {
    u64 place = u64(host(space, address, size, line));
    const u64 shared = u64(ptx_thread.shared);
    if (place >= shared && place < shared + ptx_thread.shared_size)
        place = weak::shared_place(block->seen.number, place - shared);
    return place;
}

void note(u64 place, u32 size, bool stores, bool is_atomic, int line, u64 value = 0) {
    if (is_atomic) stop_if(line, weak::wrong(block->seen, place, size, false));  // it loads, too
    stop_if(line, weak::wrong(block->seen, place, size, stores));
    weak::Access mine = {block->seen.number, me, seen().now, block->seen.grid, line, is_atomic, 15, value};
    if (size < 4) mine.bytes = ((1u << size) - 1) << place % 4;
    for (u64 granule = place / 4; granule <= (place + size - 1) / 4; ++granule)
        stop_if(line, weak::race(block->seen, seen(), granule, mine, stores));
}

void may_give_way(int line) {
    weak::some_arrive(block->seen, seen());
    if (!any(GIVES_WAY)) give_way(READY, line);
}

}  // namespace

PTX_SHOWN void ptx_block_barrier(int line) {
    if (!is_weakened(line)) give_way(AT_BLOCK_BARRIER, line);
}
PTX_SHOWN void ptx_warp_barrier(int line) {
    if (!is_weakened(line)) give_way(AT_WARP_BARRIER, line);
}

PTX_SHOWN bool ptx_block_vote(bool mine, int line) {
    if (is_weakened(line)) return mine;
    u32* voted = block->voted[thread().votes++ % 2];
    const u32 vote = thread().votes;  // who has ended has not voted in this one
    voted[me] = mine ? vote : 0;
    give_way(AT_BLOCK_VOTE, line);
    return std::any_of(voted, voted + block->grid->threads, [=](u32 yes) { return yes == vote; });
}

// It orders no memory.
PTX_SHOWN u64 ptx_exchange(u64 mine, u32 lane, int line) {
    const u32 mine_is = thread().exchanges++;
    u64* exchanged = block->exchanged[mine_is % 2];
    exchanged[me] = mine;
    give_way(AT_EXCHANGE, line);
    const u32 other = me / WARP * WARP + lane;
    if (other >= block->grid->threads || block->threads[other].exchanges <= mine_is)
        ptx_stop(line, "a lane that has ended");
    return exchanged[other];
}

PTX_SHOWN void ptx_fence(int line) {
    if (is_checked() && !is_weakened(line)) weak::fence(block->seen, seen(), me);
}

PTX_SHOWN void ptx_wait_for_grids(int line) {
    if (is_weakened(line)) return;
    if (!have_ended_before(block->grid->number)) give_way(AT_GRIDS, line);
    if (!is_checked()) return;
    seen().waited = true;
    weak::acquire(seen());
}

PTX_SHOWN void ptx_launch_dependents(int) { invite(*block); }

PTX_SHOWN void ptx_load(Space space, u64 address, void* value, u32 size, Caching caching, int line) {
    if (space == param || space == constant || space == frame) {
        if (space == param && (address < u64(ptx_thread.parameters) ||
                               address + size > u64(ptx_thread.parameters) + ptx_thread.parameter_size))
            ptx_stop(line, "an access beyond the parameters");
        std::memcpy(value, reinterpret_cast<const void*>(address), size);
        return;
    }
    may_give_way(line);
    const u64 place = checked_place(space, address, size, line);
    note(place, size, false, false, line);
    const bool cached = caching == CACHED || is_weakened(line);
    for (u32 i = 0; i < size; ++i)
        static_cast<unsigned char*>(value)[i] = weak::read_byte(block->seen, seen(), place + i, cached);
}

PTX_SHOWN void ptx_store(Space space, u64 address, const void* value, u32 size, int line) {
    if (space == frame) {
        std::memcpy(reinterpret_cast<void*>(address), value, size);
        return;
    }
    may_give_way(line);
    weak::Store store = {checked_place(space, address, size, line), size, {}};
    std::memcpy(store.bytes, value, size);
    u64 stored = 0;
    std::memcpy(&stored, value, size);
    note(store.address, size, true, false, line, stored);
    seen().waiting.push_back(store);
}

PTX_SHOWN void ptx_atomic(Space space, u64 address, u32 size, Order order, bool done, int line) {
    const bool ordered = order == ACQUIRE_RELEASE && !is_weakened(line);
    if (!done) {
        may_give_way(line);
        const u64 place = checked_place(space, address, size, line);
        note(place, size, true, true, line);
        if (ordered) weak::show_all(block->seen, seen());
        weak::tell(block->seen, seen(), me, place, size, ordered);
    } else if (ordered) {
        seen().fresh = ++weak::memory.time;
    }
}

// For the host.

PTX_SHOWN void ptx_seed(u64 seed) { random_bits.seed(seed); }

// Whether memory is weak and races are looked for, from the next launch on.
PTX_SHOWN void ptx_check(bool checked) {
    ptx_thread.checked = checked;
    weak::memory = weak::Memory();
    weak::memory.random = &random_bits;
}
PTX_SHOWN void ptx_weaken(int line) { weak::memory.weakened[line] = true; }
PTX_SHOWN void ptx_mean(int line, int other) { weak::memory.meant[{line, other}] = true; }

PTX_SHOWN void ptx_forget_allocations() { weak::memory.allocations.clear(); }
// Bytes that hold the poison were not written, where somebody asks for that.
PTX_SHOWN void ptx_allocation(u64 start, u64 size, bool is_fresh, unsigned char poison) {
    weak::Allocation found = {start, size, {}};
    if (is_fresh)
        for (u64 i = 0; i < size; ++i)
            found.unwritten.push_back(reinterpret_cast<const unsigned char*>(start)[i] == poison);
    weak::memory.allocations[start] = found;
}

// A grid that runs at ptx_run, together with those that wait for that already.
PTX_SHOWN void ptx_add(const char* name, void (*entry)(), const void* parameters, u64 size, u32 blocks,
                   u32 threads, u32 shared) {
    auto grid = std::make_unique<Grid>();
    grid->entry = entry;
    grid->name = name;
    grid->number = u32(grids.size());
    const char* start = static_cast<const char*>(parameters);
    grid->parameters.assign(start, start + size);
    grid->blocks = blocks;
    grid->threads = threads;
    grid->shared = shared;
    grids.push_back(std::move(grid));
}

// The text of an error, or nothing where there was none.
PTX_SHOWN const char* ptx_run() {
    error.clear();
    weak::memory.shadows.clear();
    weak::memory.told.clear();
#if defined(__SSE__)
    const unsigned mode = _mm_getcsr();
    _mm_setcsr(0x1F80);  // subnormal numbers are kept, whatever the caller's mode
#endif
    emulated::ended = [] {
        if (is_checked()) seen().ended = true;
        while (is_checked() && any(4)) give_way(READY, 0);  // what it stored may be late
        give_way(DONE, 0);
    };
    run();
#if defined(__SSE__)
    _mm_setcsr(mode);
#endif
    grids.clear();
    if (error.empty()) return nullptr;
    places.clear();  // with fibers that stand in the midst of something
    return error.c_str();
}

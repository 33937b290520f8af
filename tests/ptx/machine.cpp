// Runs translated PTX: a grid's blocks, a few of them resident together, their threads as fibers.
//
// A thread runs until it waits for others; under the memory model it may give way at any access,
// too. Which warp goes on, and which block, is drawn at random from a seed. An error of a kernel
// ends its launch: ptx_launch returns its text.
#include <cstdio>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "../cuda_emulated/fiber.h"
#include "memory_model.h"

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

PTX_SHOWN PtxThread ptx_thread;
PtxThread ptx_thread = {};

namespace {

constexpr u32 WARP = 32, RESIDENT = 3, RESIDENT_CHECKED = 8, GIVES_WAY = 8;
constexpr size_t STACK = 512 * 1024;

enum State { READY, AT_EXCHANGE, AT_WARP_BARRIER, AT_BLOCK_BARRIER, AT_GRIDS, DONE };

struct Thread : emulated::FiberContext {
    State state = DONE;
    u32 exchanges = 0, votes = 0;
    int line = 0;  // where it waits
};

struct Grid {
    void (*entry)() = nullptr;
    std::string name;
    std::vector<char> parameters;
    u32 blocks = 0, threads = 0, shared = 0;
    u32 begun = 0, ended = 0, invites = 0;
    std::vector<u32> order;
};

struct Block {
    Grid* grid = nullptr;
    u32 index = 0;
    bool invites = false;  // those that depend on its grid
    weak::Block seen;
    std::vector<Thread> threads = std::vector<Thread>(1024);
    std::vector<char> shared;
    u64 exchanged[2][1024];
    bool voted[2][1024];
};

std::mt19937_64 random_bits;
std::string error;
std::vector<std::unique_ptr<Block>> places;
Block* block;
u32 me;  // of the thread that runs

std::vector<std::unique_ptr<Grid>> grids;  // that run together
u32 numbered;                              // blocks of them

Thread& thread() { return block->threads[me]; }
weak::Thread& seen() { return block->seen.threads[me]; }
bool is_checked() { return ptx_thread.checked; }

u32 any(u32 count) { return u32(random_bits() % count); }

void give_way(State state, int line) {
    thread().state = state;
    thread().line = line;
    emulated::give_way(thread());
}

void run_thread(u32 index) {
    me = index;
    ptx_thread.tid = index;
    emulated::resume(thread(), STACK);
}

void at(Block& chosen) {
    block = &chosen;
    ptx_thread.ctaid = block->index;
    ptx_thread.ntid = block->grid->threads;
    ptx_thread.nctaid = block->grid->blocks;
    ptx_thread.shared = block->shared.data();
    ptx_thread.shared_size = block->shared.size();
    ptx_thread.parameters = block->grid->parameters.data();
    ptx_thread.parameter_size = block->grid->parameters.size();
    emulated::body = block->grid->entry;
}

std::vector<u32> any_order(u32 count) {
    std::vector<u32> order(count);
    for (u32 i = 0; i < count; ++i) order[i] = i;
    for (u32 i = count; i > 1; --i) std::swap(order[i - 1], order[any(i)]);
    return order;
}

// Lets those go on who waited for others that have all come; an ended thread is not waited for.
bool release(u32 first, u32 end, State state) {
    bool some = false;
    for (u32 i = first; i < end; ++i) {
        const State its = block->threads[i].state;
        if (its != state && its != DONE) return false;
        some |= its == state;
    }
    if (!some) return false;
    for (u32 i = first; i < end; ++i)
        if (block->threads[i].state == state) block->threads[i].state = READY;
    weak::Block& model = block->seen;
    const bool whole = state == AT_BLOCK_BARRIER;
    if (is_checked() && (whole || state == AT_WARP_BARRIER))
        weak::meet(model, first, end, whole ? model.at_barrier : model.at_warp_barrier);
    return true;
}

bool any_in(u32 first, u32 end, State state) {
    for (u32 i = first; i < end; ++i)
        if (block->threads[i].state == state) return true;
    return false;
}

bool all_in(State state) {
    const auto end = block->threads.begin() + block->grid->threads;
    return std::all_of(block->threads.begin(), end, [&](Thread& t) { return t.state == state; });
}

// A warp's threads, each as far as it goes; under the memory model one of them, to its next access.
// Whether one went.
bool run_warp(u32 first, u32 end) {
    if (!any_in(first, end, READY))
        return release(first, end, AT_EXCHANGE) || release(first, end, AT_WARP_BARRIER);
    for (u32 i : any_order(end - first)) {
        if (block->threads[first + i].state != READY) continue;
        run_thread(first + i);
        if (!error.empty()) return false;
        if (is_checked()) break;
    }
    return true;
}

// One warp as far as it goes while the others stand still, so that a missing barrier shows best.
// Whether the block goes on.
bool run_block() {
    const u32 threads = block->grid->threads;
    for (u32 warp : any_order((threads + WARP - 1) / WARP)) {
        const u32 end = std::min((warp + 1) * WARP, threads);
        bool ran = run_warp(warp * WARP, end);
        if (!ran && error.empty()) continue;
        while (ran && !is_checked()) ran = run_warp(warp * WARP, end);
        return error.empty();
    }
    if (release(0, threads, AT_BLOCK_BARRIER)) return true;
    if (any_in(0, threads, AT_GRIDS)) return true;
    if (!all_in(DONE))
        error = block->grid->name + ": a barrier that not all threads reach";
    return false;
}

void begin(Block& place, Grid& grid, u32 number) {
    place.grid = &grid;
    place.index = grid.order[grid.begun++];
    place.invites = false;
    place.shared.resize(grid.shared);
    for (char& byte : place.shared) byte = char(random_bits());  // what nobody wrote
    for (u32 i = 0; i < grid.threads; ++i) place.threads[i].state = READY;
    if (!is_checked()) return;
    place.seen = weak::Block();
    place.seen.number = numbered++;
    place.seen.grid = number;
    place.seen.threads.resize(grid.threads);
    place.seen.at_barrier.resize(grid.threads);
    place.seen.at_warp_barrier.resize(grid.threads);
    place.seen.unwritten.assign(grid.shared, true);
}

void invite(Block& from) {
    if (!from.invites) ++from.grid->invites;
    from.invites = true;
}

// The grid of which another block may begin; one that depends on another comes after its blocks.
Grid* next_grid() {
    for (size_t i = 0; i < grids.size(); ++i) {
        if (i && (grids[i - 1]->begun < grids[i - 1]->blocks || grids[i - 1]->invites < grids[i - 1]->blocks))
            return nullptr;
        if (grids[i]->begun < grids[i]->blocks) return grids[i].get();
    }
    return nullptr;
}

void end(std::vector<Block*>& running, size_t chosen) {
    if (is_checked())
        for (weak::Thread& thread : block->seen.threads) weak::show_all(block->seen, thread);
    invite(*block);
    ++block->grid->ended;
    running.erase(running.begin() + long(chosen));
}

Block& free_place(const std::vector<Block*>& running) {
    for (const std::unique_ptr<Block>& place : places)
        if (std::find(running.begin(), running.end(), place.get()) == running.end()) return *place;
    places.push_back(std::make_unique<Block>());
    return *places.back();
}

// One block goes on most of the time; now and then another does, for a short time.
void run() {
    const u32 count = is_checked() ? RESIDENT_CHECKED : 1 + any(RESIDENT);
    std::vector<Block*> running;
    for (const std::unique_ptr<Grid>& grid : grids) grid->order = any_order(grid->blocks);
    numbered = 0;
    for (;;) {
        Grid* grid = next_grid();
        if (grid && running.size() < count) {
            Block& place = free_place(running);
            begin(place, *grid, u32(grid != grids[0].get()));
            running.push_back(&place);
            continue;
        }
        if (running.empty()) return;
        const size_t chosen = any(3) ? 0 : any(u32(running.size()));
        at(*running[chosen]);
        if (grids[0]->ended == grids[0]->blocks)
            for (Thread& thread : block->threads)
                if (thread.state == AT_GRIDS) thread.state = READY;
        bool goes_on = true;
        for (u32 steps = 1 + any(chosen ? 4 : 64); goes_on && steps; --steps) goes_on = run_block();
        if (!error.empty()) return;
        if (!goes_on) end(running, chosen);
    }
}

}  // namespace

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

void note(u64 place, u32 size, bool stores, bool is_atomic, int line) {
    stop_if(line, weak::wrong(block->seen, place, size, stores));
    weak::Access mine = {block->seen.number, me, seen().now, block->seen.grid, line, is_atomic, 15};
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
    bool* voted = block->voted[thread().votes++ % 2];
    voted[me] = mine;
    ptx_block_barrier(line);
    return std::any_of(voted, voted + block->grid->threads, [](bool yes) { return yes; });
}

// It orders no memory.
PTX_SHOWN u64 ptx_exchange(u64 mine, u32 lane, int line) {
    u64* exchanged = block->exchanged[thread().exchanges++ % 2];
    exchanged[me] = mine;
    give_way(AT_EXCHANGE, line);
    const u32 other = me / WARP * WARP + lane;
    if (other >= block->grid->threads || block->threads[other].state == DONE)
        ptx_stop(line, "a lane that has ended");
    return exchanged[other];
}

PTX_SHOWN void ptx_fence(int line) {
    if (is_checked() && !is_weakened(line)) weak::fence(block->seen, seen(), me);
}

PTX_SHOWN void ptx_wait_for_grids(int line) {
    if (!is_checked() || !block->seen.grid || is_weakened(line)) return;
    if (grids[0]->ended < grids[0]->blocks) give_way(AT_GRIDS, line);
    seen().waited = true;
    weak::acquire(seen());
}

PTX_SHOWN void ptx_launch_dependents(int) { invite(*block); }

PTX_SHOWN void ptx_load(Space space, u64 address, void* value, u32 size, Caching caching, int line) {
    if (space == param || space == constant) {
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
    may_give_way(line);
    weak::Store store = {checked_place(space, address, size, line), size, {}};
    std::memcpy(store.bytes, value, size);
    note(store.address, size, true, false, line);
    seen().waiting.push_back(store);
}

PTX_SHOWN void ptx_atomic(Space space, u64 address, u32 size, Order order, bool done, int line) {
    const bool ordered = order == ACQUIRE_RELEASE && !is_weakened(line);
    if (!done) {
        may_give_way(line);
        const u64 place = checked_place(space, address, size, line);
        note(place, size, true, true, line);
        if (ordered) {
            weak::show_all(block->seen, seen());
            weak::release(block->seen, seen(), me);
        }
        weak::tell(block->seen, seen(), place, size);
    } else if (ordered) {
        weak::acquire(seen());
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

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
#include "machine.h"

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#define SHOWN extern "C" __attribute__((visibility("default")))

SHOWN PtxThread ptx_thread;
PtxThread ptx_thread = {};

namespace {

constexpr u32 WARP = 32, RESIDENT = 3;
constexpr size_t STACK = 512 * 1024;

enum State { READY, AT_WARP_BARRIER, AT_BLOCK_BARRIER, AT_GRIDS, DONE };

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
    u32 begun = 0, ended = 0;
    std::vector<u32> order;
};

struct Block {
    Grid* grid = nullptr;
    u32 index = 0;
    bool launches_dependents = false;
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

Thread& thread() { return block->threads[me]; }

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
    for (u32 i = first; i < end && some; ++i)
        if (block->threads[i].state == state) block->threads[i].state = READY;
    return some;
}

bool any_in(u32 first, u32 end, State state) {
    for (u32 i = first; i < end; ++i)
        if (block->threads[i].state == state) return true;
    return false;
}

// A warp's threads, each as far as it goes; whether one did.
bool run_warp(u32 first, u32 end) {
    if (!any_in(first, end, READY)) return release(first, end, AT_WARP_BARRIER);
    for (u32 i : any_order(end - first)) {
        if (block->threads[first + i].state == READY) run_thread(first + i);
        if (!error.empty()) return false;
    }
    return true;
}

// One warp as far as it goes while the others stand still, so that a missing barrier shows best.
// Whether the block goes on; one that waits for grids does not, until they have ended.
bool run_block() {
    const u32 threads = block->grid->threads;
    for (u32 warp : any_order((threads + WARP - 1) / WARP)) {
        bool ran = false;
        while (run_warp(warp * WARP, std::min((warp + 1) * WARP, threads))) ran = true;
        if (!error.empty()) return false;
        if (ran) return true;
    }
    if (release(0, threads, AT_BLOCK_BARRIER)) return true;
    if (any_in(0, threads, AT_BLOCK_BARRIER) || any_in(0, threads, AT_WARP_BARRIER))
        if (!any_in(0, threads, AT_GRIDS)) error = "a barrier that not all threads reach";
    return false;
}

void begin(Block& place, Grid& grid) {
    place.grid = &grid;
    place.index = grid.order[grid.begun++];
    place.launches_dependents = false;
    place.shared.assign(grid.shared, 0);
    for (char& byte : place.shared) byte = char(random_bits());  // what nobody wrote
    for (u32 i = 0; i < grid.threads; ++i) place.threads[i].state = READY;
}

void run(Grid& grid) {
    grid.order = any_order(grid.blocks);
    const u32 count = 1 + any(RESIDENT);
    while (places.size() < count) places.push_back(std::make_unique<Block>());
    std::vector<Block*> running;
    while (error.empty() && (grid.begun < grid.blocks || !running.empty())) {
        while (running.size() < count && grid.begun < grid.blocks)
            for (u32 i = 0; i < count && running.size() < count && grid.begun < grid.blocks; ++i)
                if (std::find(running.begin(), running.end(), places[i].get()) == running.end()) {
                    begin(*places[i], grid);
                    running.push_back(places[i].get());
                }
        const size_t chosen = any(3) ? 0 : any(u32(running.size()));
        at(*running[chosen]);
        bool goes_on = true;
        for (u32 steps = 1 + any(chosen ? 4 : 64); goes_on && steps; --steps) goes_on = run_block();
        if (!goes_on) {
            ++grid.ended;
            running.erase(running.begin() + long(chosen));
        }
    }
}

}  // namespace

SHOWN void ptx_stop(int line, const char* reason) {
    error = block->grid->name + ", line " + std::to_string(line) + ": " + reason + " (thread " +
            std::to_string(me) + " of block " + std::to_string(block->index) + ")";
    give_way(DONE, line);
}

SHOWN void ptx_block_barrier(int line) { give_way(AT_BLOCK_BARRIER, line); }
SHOWN void ptx_warp_barrier(int line) { give_way(AT_WARP_BARRIER, line); }

SHOWN bool ptx_block_vote(bool mine, int line) {
    bool* voted = block->voted[thread().votes++ % 2];
    voted[me] = mine;
    ptx_block_barrier(line);
    return std::any_of(voted, voted + block->grid->threads, [](bool yes) { return yes; });
}

SHOWN u64 ptx_exchange(u64 mine, u32 lane, int line) {
    u64* exchanged = block->exchanged[thread().exchanges++ % 2];
    exchanged[me] = mine;
    ptx_warp_barrier(line);
    const u32 other = me / WARP * WARP + lane;
    if (other >= block->grid->threads || block->threads[other].state == DONE)
        ptx_stop(line, "a lane that has ended");
    return exchanged[other];
}

SHOWN void ptx_fence(int) {}
SHOWN void ptx_wait_for_grids(int) {}
SHOWN void ptx_launch_dependents(int) { block->launches_dependents = true; }
SHOWN void ptx_load(Space, u64, void*, u32, Caching, int) {}
SHOWN void ptx_store(Space, u64, const void*, u32, int) {}
SHOWN void ptx_atomic(Space, u64, u32, Order, bool, int) {}

// For the host.

SHOWN void ptx_seed(u64 seed) { random_bits.seed(seed); }

// The text of an error, or nothing where there was none.
SHOWN const char* ptx_launch(const char* name, void (*entry)(), const void* parameters,
                             u64 size, u32 blocks, u32 threads, u32 shared) {
    if (!blocks || !threads || threads > 1024) return "an invalid configuration";
    Grid grid;
    grid.entry = entry;
    grid.name = name;
    const char* start = static_cast<const char*>(parameters);
    grid.parameters.assign(start, start + size);
    grid.blocks = blocks;
    grid.threads = threads;
    grid.shared = shared;
    error.clear();
#if defined(__SSE__)
    const unsigned mode = _mm_getcsr();
    _mm_setcsr(0x1F80);  // subnormal numbers are kept, whatever the caller's mode
#endif
    emulated::ended = [] { give_way(DONE, 0); };
    run(grid);
#if defined(__SSE__)
    _mm_setcsr(mode);
#endif
    if (error.empty()) return nullptr;
    places.clear();  // with fibers that stand in the midst of something
    return error.c_str();
}

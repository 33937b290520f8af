// Threads and blocks of the emulation.
//
// The threads of a block are fibers, which run until they wait for each other; a few blocks are
// resident together, and while a warp of one stands still another block may come and end. The order
// in which they come is drawn at random.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "fiber.h"

extern "C" char __start_cuda_shared[], __stop_cuda_shared[];

namespace emulated {

enum State { READY, AT_WARP_BARRIER, AT_BLOCK_BARRIER, DONE };
constexpr unsigned WARP = 32, LARGEST_BLOCK = 1024, RESIDENT = 3;
constexpr size_t STACK = 64 * 1024;

struct Fiber : FiberContext {
    State state = DONE;
    unsigned shuffles = 0, votes = 0;
    int line = 0;  // of the barrier that it waits at
};

// A resident block; of several, one has its shared memory in the section.
struct Block {
    unsigned index = 0, threads = 0;
    std::vector<Fiber> fibers = std::vector<Fiber>(LARGEST_BLOCK);
    std::vector<unsigned> warps;  // those whose turn is still to come, before the next barrier
    std::vector<char> shared;
    uint64_t exchanged[2][LARGEST_BLOCK];  // what the lanes of warps hand to each other
    bool votes[2][LARGEST_BLOCK];
};

inline Block resident[RESIDENT], *block = resident;
inline std::mt19937_64 random;
inline std::vector<std::string> launches, settings;  // for tests (controls.cpp)
inline std::map<std::string, int> barriers;          // how often each was reached by a thread
inline std::string dropped_barrier, failing_call;

[[noreturn]] inline void stop(const char* reason) {
    std::fprintf(stderr, "cuda_emulated: %s\n", reason);
    std::abort();
}

inline Fiber& fiber() { return block->fibers[threadIdx.x]; }

inline void pause(State state) {
    fiber().state = state;
    give_way(fiber());
}

inline std::vector<unsigned> any_order(unsigned count) {
    std::vector<unsigned> order(count);
    for (unsigned i = 0; i < count; ++i) order[i] = i;
    for (unsigned i = count; i > 1; --i) std::swap(order[i - 1], order[random() % i]);
    return order;
}

// Lets those go on who waited for others that have all come (or ended).
inline bool release(unsigned first, unsigned end, State state) {
    std::vector<Fiber>& fibers = block->fibers;
    bool some = false;
    for (unsigned i = first; i < end; ++i) {
        if (fibers[i].state != state && fibers[i].state != DONE) return false;
        some |= fibers[i].state == state;
    }
    for (unsigned i = first; i < end && some; ++i)
        if (fibers[i].state == state) fibers[i].state = READY;
    return some;
}

// The threads of a warp, in any order, until each waits for the block or has ended.
inline void run_warp(unsigned first, unsigned end) {
    std::vector<unsigned> order = any_order(end - first);
    do {
        for (unsigned i : order) {
            threadIdx.x = first + i;
            if (fiber().state == READY) resume(fiber(), STACK);
        }
    } while (release(first, end, AT_WARP_BARRIER));
}

inline void switch_to(Block& other) {
    const size_t size = static_cast<size_t>(__stop_cuda_shared - __start_cuda_shared);
    if (&other != block) {
        block->shared.assign(__start_cuda_shared, __stop_cuda_shared);
        block = &other;
        if (block->shared.size() == size)
            std::memcpy(__start_cuda_shared, block->shared.data(), size);
    }
    blockIdx.x = block->index;
}

inline std::vector<unsigned> all_warps() { return any_order((block->threads + WARP - 1) / WARP); }

inline void start(Block& other, unsigned index, unsigned threads) {
    other.index = index;
    other.threads = threads;
    switch_to(other);
    for (unsigned i = 0; i < threads; ++i) block->fibers[i].state = READY;
    std::memset(__start_cuda_shared, static_cast<int>(random() % 255 + 1),
                static_cast<size_t>(__stop_cuda_shared - __start_cuda_shared));
    block->warps = all_warps();
}

inline void check_barrier() {
    int line = 0;
    for (unsigned i = 0; i < block->threads; ++i) {
        const Fiber& fiber = block->fibers[i];
        if (fiber.state != AT_BLOCK_BARRIER) continue;
        if (line && line != fiber.line) stop("threads of a block wait at different barriers");
        line = fiber.line;
    }
}

// One warp goes as far as it can while the others stand still: so a missing barrier shows best.
// Whether the block goes on after that.
inline bool step() {
    const unsigned warp = block->warps.back(), threads = block->threads;
    block->warps.pop_back();
    run_warp(warp * WARP, std::min((warp + 1) * WARP, threads));
    if (!block->warps.empty()) return true;
    check_barrier();
    if (release(0, threads, AT_BLOCK_BARRIER)) {
        block->warps = all_warps();
        return true;
    }
    for (unsigned i = 0; i < threads; ++i)
        if (block->fibers[i].state != DONE) stop("a barrier that not all threads reach");
    return false;
}

// One place goes on most of the time, with one block after the other; now and then a block at
// another one does, for a short time.
inline void run_grid(unsigned blocks, unsigned threads) {
    const std::vector<unsigned> order = any_order(blocks);
    const unsigned places = 1 + static_cast<unsigned>(random() % RESIDENT);
    unsigned next = 0;
    std::vector<Block*> running;
    for (; next < std::min(places, blocks); ++next) {
        start(resident[next], order[next], threads);
        running.push_back(&resident[next]);
    }
    while (!running.empty()) {
        const size_t chosen = random() % 3 ? 0 : random() % running.size();
        switch_to(*running[chosen]);
        bool goes_on = true;
        for (auto steps = 1 + random() % (chosen ? 4 : 64); goes_on && steps; --steps)
            goes_on = step();
        if (goes_on) continue;
        if (next < blocks) start(*running[chosen], order[next++], threads);
        else running.erase(running.begin() + static_cast<long>(chosen));
    }
}

// Whether it is a barrier, and was not taken out.
inline bool wait_for_block(const char* file, int line) {
    const char* name = std::strrchr(file, '/');
    std::string place = std::string(name ? name + 1 : file) + ":" + std::to_string(line);
    ++barriers[place];
    if (place == dropped_barrier) return false;
    fiber().line = line;
    pause(AT_BLOCK_BARRIER);
    return true;
}

// A barrier at which every thread learns whether one said yes.
inline bool vote(const char* file, int line, bool mine) {
    bool* votes = block->votes[fiber().votes++ % 2];
    votes[threadIdx.x] = mine;
    if (!wait_for_block(file, line)) return mine;
    return std::any_of(votes, votes + block->threads, [](bool yes) { return yes; });
}

}  // namespace emulated

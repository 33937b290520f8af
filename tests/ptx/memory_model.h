// Memory as weak as the PTX manual lets it be, and who may know of which access.
//
// Stores. A store waits in its thread's buffer and reaches memory at some random later time, before
// or after others to other addresses. A barrier hands what waits to the block, whose threads see it
// from then on; a fence sends the thread's and, since what was seen is sent on, its block's to memory.
// Loads. One that may come from the first cache returns what its block has read there before, or what
// is in memory now, unless the thread (or one before a barrier) has passed a fence since.
//
// Who has been told of what, and what races: races.h.
//
// Source: Parallel Thread Execution ISA, section 8 (memory consistency model).
#pragma once

#include <map>
#include <memory>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

#include "machine.h"

namespace weak {

using Times = std::vector<u32>;                          // of a block's threads
using Known = std::map<u32, std::shared_ptr<const Times>>;  // by block

inline void merge(Known& into, const Known& from) {
    for (const auto& [block, times] : from) {
        std::shared_ptr<const Times>& mine = into[block];
        if (!mine || mine == times) {
            mine = times;
            continue;
        }
        auto both = std::make_shared<Times>(*mine);
        for (size_t i = 0; i < both->size(); ++i) (*both)[i] = std::max((*both)[i], (*times)[i]);
        mine = both;
    }
}

struct Store {
    u64 address;
    u32 size;
    unsigned char bytes[8];
};

inline bool overlap(u64 a, u64 size_a, u64 b, u64 size_b) { return a < b + size_b && b < a + size_a; }

// What one thread may see of another's work, or has not yet shown.
struct Thread {
    std::vector<Store> waiting;  // shared memory's, too, by its address in the window
    u64 fresh = 0;               // loads may not return what was cached before
    u32 now = 1;                 // counts what it has told
    Known known, released, noticed;
    bool waited = false;  // for the grid before
    bool ended = false;   // and so comes to no barrier
};

struct Cached {
    unsigned char byte;
    u64 time;
};

struct Block {
    u32 number = 0, grid = 0;
    std::vector<Thread> threads;
    std::vector<Store> waiting;              // seen by its threads only
    std::unordered_map<u64, Cached> cached;  // bytes of global memory
    Times at_barrier, at_warp_barrier;       // when each thread was last there
    Known known;
    std::vector<bool> unwritten;  // of shared memory
};

// Who has accessed which of four bytes.
struct Access {
    u32 block, thread, time, grid;
    int line;
    bool is_atomic;
    u32 bytes;  // a bit for each
    u64 value;  // that was stored
};
struct Shadow {
    std::vector<Access> stored, loaded;
};

struct Allocation {
    u64 start, size;
    std::vector<bool> unwritten;  // empty where all of it is written
};

// Every grid of a launch, or of two that overlap.
struct Memory {
    std::mt19937_64* random = nullptr;
    u64 time = 1;
    std::unordered_map<u64, Shadow> shadows;
    std::unordered_map<u64, Known> told;  // by address of an atomic operation
    std::map<u64, Allocation> allocations;
    std::map<int, bool> weakened;  // lines whose fence, barrier or way around the cache is ignored
    std::map<std::pair<int, int>, bool> meant;  // lines whose races are

    bool chance(u32 of) { return (*random)() % of == 0; }
};

inline Memory memory;

inline u64 shared_place(u32 block, u64 address) { return SHARED_WINDOW + (u64(block) << 32) + address; }
inline bool is_shared(u64 address) { return address >> 60; }

// Raw memory, behind all buffers.
inline unsigned char* raw(u64 address) {
    if (!is_shared(address)) return reinterpret_cast<unsigned char*>(address);
    return reinterpret_cast<unsigned char*>(ptx_thread.shared) + (address & 0xFFFFFFFF);
}

inline void to_memory(Block& block, const Store& store) {
    std::memcpy(raw(store.address), store.bytes, store.size);
    for (u32 i = 0; i < store.size && !block.cached.empty(); ++i) block.cached.erase(store.address + i);
}

// One of those that wait, at random; an earlier one to the same place goes first.
inline Store taken(std::vector<Store>& waiting, size_t chosen) {
    for (size_t i = 0; i < chosen; ++i)
        if (overlap(waiting[i].address, waiting[i].size, waiting[chosen].address, waiting[chosen].size)) {
            chosen = i;
            break;
        }
    Store store = waiting[chosen];
    waiting.erase(waiting.begin() + long(chosen));
    return store;
}

inline void some_arrive(Block& block, Thread& thread) {
    if (!thread.waiting.empty() && memory.chance(4)) {
        Store store = taken(thread.waiting, (*memory.random)() % thread.waiting.size());
        if (is_shared(store.address)) to_memory(block, store);
        else {  // what the block was shown before goes first
            for (size_t i = 0; i < block.waiting.size();)
                if (overlap(block.waiting[i].address, block.waiting[i].size, store.address, store.size))
                    to_memory(block, taken(block.waiting, i));
                else ++i;
            to_memory(block, store);
        }
    }
    if (!block.waiting.empty() && memory.chance(4))
        to_memory(block, taken(block.waiting, (*memory.random)() % block.waiting.size()));
}

// At a barrier: the other threads of the block see it now.
inline void show_block(Block& block, Thread& thread) {
    for (Store& store : thread.waiting)
        if (is_shared(store.address)) to_memory(block, store);
        else block.waiting.push_back(store);
    thread.waiting.clear();
}

inline void show_all(Block& block, Thread& thread) {
    show_block(block, thread);
    for (Store& store : block.waiting) to_memory(block, store);
    block.waiting.clear();
}

inline unsigned char read_byte(Block& block, Thread& thread, u64 address, bool through_cache) {
    unsigned char value = *raw(address);
    if (through_cache && !is_shared(address)) {
        auto found = block.cached.find(address);
        if (found != block.cached.end() && found->second.time >= thread.fresh) value = found->second.byte;
        else block.cached[address] = {value, memory.time};
    }
    for (const std::vector<Store>* waiting : {&block.waiting, &thread.waiting})
        for (const Store& store : *waiting)
            if (address - store.address < store.size) value = store.bytes[address - store.address];
    return value;
}

}  // namespace weak

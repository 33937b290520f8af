// Memory as weak as the PTX manual lets it be, and who may know of which access.
//
// Stores. A store waits in its thread's buffer and reaches memory at some random later time, before
// or after others to other addresses. A barrier hands what waits to the block, whose threads see it
// from then on; a fence sends the thread's and, since what was seen is sent on, its block's to memory.
// Loads. One that may come from the first cache returns what its block has read there before, or what
// is in memory now, unless the thread (or one before a barrier) has passed a fence since.
//
// Races. Every thread counts the times at which it tells others something (barriers, fences). An
// access of a thread at such a time is known to another thread if a barrier, or a fence with an atomic
// operation on either side, or the end of a grid has told it so. Of two accesses to the same four
// bytes, one of them a store, one must be known to who does the other; atomic operations are known to
// each other.
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

// Who knows what

inline bool knows(const Block& block, const Thread& thread, u32 me, const Access& other) {
    if (other.grid != block.grid) return thread.waited;
    if (other.block != block.number) {
        for (const Known* known : {&thread.known, &block.known}) {
            auto found = known->find(other.block);
            if (found != known->end() && other.time <= (*found->second)[other.thread]) return true;
        }
        return false;
    }
    if (other.thread == me || other.time <= block.at_barrier[other.thread]) return true;
    return other.thread / 32 == me / 32 && other.time <= block.at_warp_barrier[other.thread];
}

// All that a thread knows, for those who learn from it.
inline Known snapshot(const Block& block, const Thread& thread, u32 me) {
    Known all = block.known;
    merge(all, thread.known);
    Times own = block.at_barrier;
    for (u32 i = me / 32 * 32; i < std::min<u32>(me / 32 * 32 + 32, u32(own.size())); ++i)
        own[i] = std::max(own[i], block.at_warp_barrier[i]);
    own[me] = thread.now;
    all[block.number] = std::make_shared<const Times>(std::move(own));
    return all;
}

inline void release(const Block& block, Thread& thread, u32 me) {
    thread.released = snapshot(block, thread, me);
    ++thread.now;
}

// What one knows all know, and see, after a barrier of the block; or of a warp.
inline void meet(Block& block, u32 first, u32 end, Times& times) {
    u64 fresh = 0;
    bool waited = false;
    for (u32 i = first; i < end; ++i) {
        Thread& thread = block.threads[i];
        show_block(block, thread);
        times[i] = thread.now++;
        fresh = std::max(fresh, thread.fresh);
        waited |= thread.waited;
    }
    Known known;
    for (u32 i = first; i < end; ++i) merge(known, block.threads[i].known);
    const bool whole = &times == &block.at_barrier;
    if (whole) merge(block.known, known);
    for (u32 i = first; i < end; ++i) {
        block.threads[i].known = whole ? Known() : known;
        block.threads[i].fresh = fresh;
        block.threads[i].waited = waited;
    }
}

inline void acquire(Thread& thread) {
    merge(thread.known, thread.noticed);
    thread.fresh = ++memory.time;
}

inline void fence(Block& block, Thread& thread, u32 me) {
    show_all(block, thread);
    release(block, thread, me);
    acquire(thread);
}

// Before an atomic operation, which is done in memory itself.
inline void tell(Block& block, Thread& thread, u64 address, u32 size) {
    for (std::vector<Store>* waiting : {&block.waiting, &thread.waiting})
        for (size_t i = 0; i < waiting->size();)
            if (overlap((*waiting)[i].address, (*waiting)[i].size, address, size))
                to_memory(block, taken(*waiting, i));
            else ++i;
    for (u32 i = 0; i < size; ++i) block.cached.erase(address + i);
    Known& told = memory.told[address];
    merge(thread.noticed, told);
    merge(told, thread.released);
}

inline std::string where(const Access& access) {
    return "line " + std::to_string(access.line) + " (thread " + std::to_string(access.thread) +
           " of block " + std::to_string(access.block) + ")";
}

inline bool is_meant(int line, int other) {
    return memory.meant.count({line, other}) || memory.meant.count({other, line});
}

// Of a load or store: the access that it races with, if there is one.
inline std::string race(const Block& block, const Thread& thread, u64 granule, const Access& mine,
                        bool stores) {
    Shadow& shadow = memory.shadows[granule];
    auto collides = [&](const Access& other) {
        return (other.bytes & mine.bytes) && !(other.is_atomic && mine.is_atomic) &&
               !knows(block, thread, mine.thread, other) && !is_meant(mine.line, other.line);
    };
    for (const Access& other : shadow.stored)
        if (collides(other)) return "a race with the store of " + where(other);
    for (const Access& other : shadow.loaded)
        if (stores && collides(other)) return "a race with the load of " + where(other);
    // What comes after this one comes after those that it takes the place of.
    auto is_replaced = [&](const Access& other) {
        const bool own = other.block == mine.block && other.thread == mine.thread;
        return !(other.bytes & ~mine.bytes) && (stores || own);
    };
    for (std::vector<Access>* before : {&shadow.stored, &shadow.loaded})
        if (stores || before == &shadow.loaded)
            before->erase(std::remove_if(before->begin(), before->end(), is_replaced), before->end());
    (stores ? shadow.stored : shadow.loaded).push_back(mine);
    return "";
}

// Of bytes that nobody has written a load is an error; a store writes them.
inline std::string unwritten(std::vector<bool>& of, u64 place, u32 size, bool stores) {
    for (u32 i = 0; i < size && !of.empty(); ++i)
        if (stores) of[place + i] = false;
        else if (of[place + i]) return "a load of memory that nobody has written";
    return "";
}

// What is wrong with an address, if anything is.
inline std::string wrong(Block& block, u64 address, u32 size, bool stores) {
    if (is_shared(address)) return unwritten(block.unwritten, address & 0xFFFFFFFF, size, stores);
    auto after = memory.allocations.upper_bound(address);
    if (after == memory.allocations.begin()) return "an access outside of every allocation";
    Allocation& allocation = std::prev(after)->second;
    if (address + size > allocation.start + allocation.size)
        return "an access outside of every allocation";
    return unwritten(allocation.unwritten, address - allocation.start, size, stores);
}

}  // namespace weak

// Who has been told of which access, and what is wrong with one.
//
// Every thread counts the times at which it tells others something (barriers, fences). An
// access of a thread at such a time is known to another thread if a barrier, or a fence with an atomic
// operation on either side, or the end of a grid has told it so. Of two accesses to the same four
// bytes, one of them a store, one must be known to who does the other; atomic operations are known to
// each other.
#pragma once

#include "memory_model.h"

namespace weak {

inline bool knows(const Block& block, const Thread& thread, u32 me, const Access& other) {
    if (other.grid != block.grid) return other.grid < block.grid && thread.waited;
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
        if (thread.ended) continue;
        show_block(block, thread);
        times[i] = thread.now++;
        fresh = std::max(fresh, thread.fresh);
        waited |= thread.waited;
    }
    Known known;
    for (u32 i = first; i < end; ++i)
        if (!block.threads[i].ended) merge(known, block.threads[i].known);
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
inline void tell(Block& block, Thread& thread, u32 me, u64 address, u32 size, bool ordered) {
    for (std::vector<Store>* waiting : {&block.waiting, &thread.waiting})
        for (size_t i = 0; i < waiting->size();)
            if (overlap((*waiting)[i].address, (*waiting)[i].size, address, size))
                to_memory(block, taken(*waiting, i));
            else ++i;
    for (u32 i = 0; i < size; ++i) block.cached.erase(address + i);
    Known& told = memory.told[address];
    if (ordered) {  // by this place alone: unlike a fence it orders no other atomic operation
        const Known mine = snapshot(block, thread, me);
        ++thread.now;
        merge(thread.known, told);
        merge(told, mine);
        return;
    }
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
    // Threads of a block may store the same at once, as Triton has them do.
    auto is_same = [&](const Access& other) {
        return stores && other.line == mine.line && other.value == mine.value &&
               other.block == mine.block;
    };
    auto collides = [&](const Access& other) {
        return (other.bytes & mine.bytes) && !(other.is_atomic && mine.is_atomic) &&
               !knows(block, thread, mine.thread, other) && !is_meant(mine.line, other.line);
    };
    for (const Access& other : shadow.stored)
        if (collides(other) && !is_same(other)) return "a race with the store of " + where(other);
    for (const Access& other : shadow.loaded)
        if (stores && collides(other)) return "a race with the load of " + where(other);
    // What comes after this one comes after those that it takes the place of: no atomic operation
    // and no access that is meant which it does not know.
    auto is_replaced = [&](const Access& other) {
        const bool own = other.block == mine.block && other.thread == mine.thread;
        return !(other.bytes & ~mine.bytes) && (own || (stores && knows(block, thread, mine.thread, other)));
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

// What translated PTX calls: memory, barriers, what the lanes of a warp tell each other.
//
// translate.py makes a C++ function of each entry; machine.cpp runs it once for every thread, as
// fibers that switch at barriers and, under the memory model, at accesses. An address of global,
// constant or parameter memory is the host's; of shared memory it is an offset, which as a generic
// address lies in a window where the host has nothing.
//
// Plain accesses are inline here. While `checked` is set all of them go to the machine instead,
// which has stores wait, loads come from a stale cache, and races be found (memory_model.h).
#pragma once

#include "values.h"

#define PTX_SHOWN extern "C" __attribute__((visibility("default")))

constexpr u64 SHARED_WINDOW = u64(1) << 60;

// The thread that runs; machine.cpp sets it at every switch.
struct PtxThread {
    u32 tid, ctaid, ntid, nctaid;
    char* shared;
    u64 shared_size;
    const char* parameters;
    u64 parameter_size;
    bool checked;
};

enum Space { generic, global, shared, param, constant, frame };  // of calls, this thread's own
enum Caching { CACHED, AT_L2 };
enum Order { RELAXED, ACQUIRE_RELEASE };

extern "C" {
extern PtxThread ptx_thread;
void ptx_block_barrier(int line);
bool ptx_block_vote(bool mine, int line);
void ptx_warp_barrier(int line);
u64 ptx_exchange(u64 mine, u32 lane, int line);  // what that lane gave
void ptx_fence(int line);
void ptx_wait_for_grids(int line);
void ptx_launch_dependents(int line);
void ptx_load(Space space, u64 address, void* value, u32 size, Caching caching, int line);
void ptx_store(Space space, u64 address, const void* value, u32 size, int line);
// Before and after an atomic operation, which itself is done on memory.
void ptx_atomic(Space space, u64 address, u32 size, Order order, bool done, int line);
}

inline char* host(Space space, u64 address, u32 size, int line) {
    if (space == generic && address >> 60) {
        space = shared;
        address -= SHARED_WINDOW;
    }
    if (address % size) ptx_stop(line, "a misaligned access");
    if (space != shared) return reinterpret_cast<char*>(address);
    if (address + size > ptx_thread.shared_size) ptx_stop(line, "an access beyond shared memory");
    return ptx_thread.shared + address;
}

// A vector's accesses are those of its elements, but the address is aligned for all of it.
[[gnu::noinline]] static u64 aligned(u64 address, u32 size, int line) {
    if (address % size) ptx_stop(line, "a misaligned access");
    return address;
}

template <class T>
[[gnu::noinline]] T load(Space space, Caching caching, u64 address, int line) {
    T value;
    if (__builtin_expect(ptx_thread.checked, 0)) {
        ptx_load(space, address, &value, sizeof value, caching, line);
        return value;
    }
    if (space == param) {
        const u64 start = u64(ptx_thread.parameters);
        if (address < start || address + sizeof value > start + ptx_thread.parameter_size)
            ptx_stop(line, "an access beyond the parameters");
    }
    std::memcpy(&value, host(space, address, sizeof value, line), sizeof value);
    return value;
}

template <class T>
[[gnu::noinline]] void store(Space space, u64 address, T value, int line) {
    if (__builtin_expect(ptx_thread.checked, 0))
        return ptx_store(space, address, &value, sizeof value, line);
    std::memcpy(host(space, address, sizeof value, line), &value, sizeof value);
}

template <class T, class F>
T atomic(Space space, Order order, u64 address, int line, F left) {
    const bool checked = ptx_thread.checked;
    if (checked) ptx_atomic(space, address, sizeof(T), order, false, line);
    char* place = host(space, address, sizeof(T), line);
    T old;
    std::memcpy(&old, place, sizeof old);
    const T value = left(old);
    std::memcpy(place, &value, sizeof value);
    if (checked) ptx_atomic(space, address, sizeof(T), order, true, line);
    return old;
}

inline void all_lanes(u32 mask, int line) {
    if (mask != 0xFFFFFFFFu) ptx_stop(line, "less than a whole warp");
}

inline void block_barrier(u32 number, int line) {
    if (number) ptx_stop(line, "a barrier other than 0");
    ptx_block_barrier(line);
}

inline void warp_barrier(u32 mask, int line) {
    all_lanes(mask, line);
    ptx_warp_barrier(line);
}

// A register of another lane, if that is within the segment; else one's own.
enum Shuffle { BUTTERFLY, INDEXED };
inline u32 shuffled(Shuffle how, u32 a, u32 given, u32 limits, u32 mask, int line, bool& inside) {
    all_lanes(mask, line);
    const u32 lane = ptx_thread.tid % 32, segment = limits >> 8 & 31;
    const u32 last = (lane & segment) | (limits & 31 & ~segment);
    u32 other = how == BUTTERFLY ? lane ^ (given & 31) : (lane & segment) | (given & 31 & ~segment);
    inside = other <= last;
    if (!inside) other = lane;
    return u32(ptx_exchange(a, other, line));
}

template <class T>
T added(T x, T y) {
    return T(x + y);
}
template <class T>
T larger(T x, T y) {
    return std::max(x, y);
}
template <class T>
T smaller(T x, T y) {
    return std::min(x, y);
}

template <class T, class F>
T reduced(T a, u32 mask, int line, F both) {
    all_lanes(mask, line);
    for (u32 step = 16; step; step /= 2)
        a = both(a, T(ptx_exchange(u64(a), (ptx_thread.tid % 32) ^ step, line)));
    return a;
}

// Four matrices of 8 rows of 8 values of two bytes. Lanes 8 i to 8 i + 7 have the addresses of the
// rows of matrix i; lane t holds two values of row t / 4 (of that column, where it is transposed).
inline void load_matrices(u32 (&held)[4], bool transposed, u64 address, int line) {
    const u32 lane = ptx_thread.tid % 32, first = lane % 4 * 2, across = lane / 4;
    for (u32 i = 0; i < 4; ++i) {
        u16 values[2];
        for (u32 j = 0; j < 2; ++j) {
            const u32 row = transposed ? first + j : across, column = transposed ? across : first + j;
            const u64 start = aligned(ptx_exchange(address, 8 * i + row, line), 16, line);
            values[j] = load<u16>(shared, CACHED, start + 2 * column, line);
        }
        held[i] = u32(values[1]) << 16 | values[0];
    }
    ptx_exchange(0, lane, line);  // together, which orders no memory
}

inline void store_matrices(const u32 (&held)[4], u64 address, int line) {
    const u32 lane = ptx_thread.tid % 32;
    for (u32 i = 0; i < 4; ++i) {
        const u64 start = aligned(ptx_exchange(address, 8 * i + lane / 4, line), 16, line);
        for (u32 j = 0; j < 2; ++j)
            store<u16>(shared, start + 2 * (lane % 4 * 2 + j), u16(held[i] >> (16 * j)), line);
    }
    ptx_exchange(0, lane, line);  // together, which orders no memory
}

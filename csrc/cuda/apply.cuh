// Apply: one pass over parameters, gradients and the rule's operands, a tile a block.
#pragma once

#include <type_traits>

#include "core/record.h"
#include "cuda/block.cuh"
#include "cuda/table.h"

namespace lrfused {

// Where a tile starts in each of its tensors, and what is done to it. A block shares it, so that
// registers are left for the elements.
struct Tile {
    TypedPointer p, g, operands[MAX_OPERANDS];
    int count;
    bool clips, writes_gradient, maximize;
    Record<double> record;
    Record<float> rounded;

    template <int operands_count>
    __device__ bool is_aligned(unsigned bytes) const {
        uintptr_t addresses = reinterpret_cast<uintptr_t>(p.data);
        addresses |= reinterpret_cast<uintptr_t>(g.data);
#pragma unroll
        for (int k = 0; k < operands_count; ++k)
            addresses |= reinterpret_cast<uintptr_t>(operands[k].data);
        return addresses % bytes == 0;
    }
};

// The types of a tile's tensors: of the parameter, the gradient, all operands.
template <class P_, class G_, class M_>
struct Mixture {
    using P = P_;
    using G = G_;
    using M = M_;
    using C = std::conditional_t<sizeof(P) == 8, double, float>;

    // Elements of a thread that are 16 bytes of the widest of the types.
    static constexpr size_t widest_of_two = sizeof(P) > sizeof(G) ? sizeof(P) : sizeof(G);
    static constexpr size_t widest = sizeof(M) > widest_of_two ? sizeof(M) : widest_of_two;
    static constexpr int width = static_cast<int>(16 / widest);

    // With four elements a thread there are registers left for what stands in the tile.
    static constexpr bool spares_registers = width != 4;
};

template <class C>
__device__ inline const Record<C>& record_of(const Tile& tile) {
    if constexpr (sizeof(C) == 8) return tile.record;
    else return tile.rounded;
}

// Unscaled and clipped; without a clip the factor after it is 1.
template <class C>
__device__ inline C clipped(C g, const Prologue<C>& r, bool clips) {
    return clips ? clip_gradient(g, r) : g * r.pre_scale;
}

template <int width, class C, class G>
__device__ inline void clip_all(const Elements<G, width>& g, C* clipped_g, bool clips,
                                const Prologue<C>& r) {
#pragma unroll
    for (int j = 0; j < width; ++j) read_as(g.x[j], clipped_g[j]);
    if (clips) {
#pragma unroll
        for (int j = 0; j < width; ++j) clipped_g[j] = clip_gradient(clipped_g[j], r);
    } else {
#pragma unroll
        for (int j = 0; j < width; ++j) clipped_g[j] = clipped_g[j] * r.pre_scale;
    }
}

// An element of whatever type.
template <class C>
__device__ inline C read(TypedPointer pointer, int i) {
    C value = 0;
    with_type(pointer.dtype, [&](auto number) {
        read_as(global(static_cast<const decltype(number)*>(pointer.data))[i], value);
    });
    return value;
}

template <class C>
__device__ inline void write(TypedPointer pointer, int i, C value) {
    with_type(pointer.dtype, [&](auto number) {
        write_as(value, global(static_cast<decltype(number)*>(pointer.data))[i]);
    });
}

// Any mixture of types, at any address, one by one.
template <class Rule, int operands, class C>
__device__ inline void update_each(const Tile& tile, int first) {
#pragma unroll 1
    for (int i = first + threadIdx.x; i < tile.count; i += APPLY_THREADS) {
        read_anew();
        const Record<C>& r = record_of<C>(tile);
        C g = clipped(read<C>(tile.g, i), r.prologue, tile.clips);
        C p = read<C>(tile.p, i), state[operands + 1];
#pragma unroll
        for (int k = 0; k < operands; ++k) state[k] = read<C>(tile.operands[k], i);
        Rule::template update<operands>(g, p, state, r.scalars);
        write(tile.p, i, p);
#pragma unroll
        for (int k = 0; k < operands; ++k) write(tile.operands[k], i, state[k]);
        if (tile.writes_gradient) write(tile.g, i, tile.maximize ? -g : g);
    }
}

// No tile is; but nothing is begun before a branch that comes after it. Where an update has no slow
// path, the compiler would begin 16 elements at once and spill registers.
__device__ inline bool is_empty(const Tile& tile) {
    read_anew();
    return tile.count == 0;
}

// A thread's elements from i on; all loads come before the first store.
// plain: no clip by value, and nobody asked for the gradient.
template <class Rule, int operands, class Types, bool plain, int width>
__device__ inline void update_at(const Tile& tile, int i) {
    using P = typename Types::P;
    using G = typename Types::G;
    using M = typename Types::M;
    using C = typename Types::C;
    constexpr bool spares_registers = Types::spares_registers;
    constexpr bool pauses = width > 8 && !Rule::HAS_SLOW_PATH;
    auto place = [&](const TypedPointer& pointer, auto number) {
        return static_cast<decltype(number)*>(pointer.data) + i;
    };
    if (spares_registers) read_anew();
    auto g = read_aligned<width>(place(tile.g, G()));
    auto p = read_aligned<width>(place(tile.p, P()));
    Elements<M, width> state[operands + 1];
#pragma unroll
    for (int k = 0; k < operands; ++k)
        state[k] = read_aligned<width>(place(tile.operands[k], M()));
    if (spares_registers) read_anew();
    const Record<C>& r = record_of<C>(tile);
    C clipped_g[width];
    if constexpr (!plain) clip_all<width>(g, clipped_g, tile.clips, r.prologue);
    if (!plain && tile.writes_gradient) {
#pragma unroll
        for (int j = 0; j < width; ++j)
            write_as(tile.maximize ? -clipped_g[j] : clipped_g[j], g.x[j]);
        write_aligned(g, place(tile.g, G()));
    }
#pragma unroll
    for (int j = 0; j < width; ++j) {
        if (sizeof(C) == 8) read_anew();
        if (pauses && j && j % 4 == 0 && is_empty(tile)) break;
        C gradient, param, of_state[operands + 1];
        read_as(g.x[j], gradient);
        read_as(p.x[j], param);
#pragma unroll
        for (int k = 0; k < operands; ++k) read_as(state[k].x[j], of_state[k]);
        gradient = plain ? gradient * r.prologue.pre_scale : clipped_g[j];
        Rule::template update<operands>(gradient, param, of_state, r.scalars);
        write_as(param, p.x[j]);
#pragma unroll
        for (int k = 0; k < operands; ++k) write_as(of_state[k], state[k].x[j]);
    }
    if (spares_registers) read_anew();
    write_aligned(p, place(tile.p, P()));
#pragma unroll
    for (int k = 0; k < operands; ++k) write_aligned(state[k], place(tile.operands[k], M()));
}

// The first elements of a plain tile, so many at a time that addresses are little of the work:
// 32 bytes of the widest type by each thread, or 16 twice. Returned is how many are done.
template <class Rule, int operands, class Types>
__device__ inline int update_plain(const Tile& tile, int count) {
    constexpr int width = Types::width, stride = APPLY_THREADS * width;
    if constexpr (operands > 2 || sizeof(typename Types::P) == 8) {
        return 0;  // there are no registers left
    } else if constexpr (WIDEST == 32) {
        if (!tile.is_aligned<operands>(32)) return 0;
        const int whole = count / (2 * width) * (2 * width);
#pragma unroll 1
        for (int i = threadIdx.x * 2 * width; i < whole; i += 2 * stride)
            update_at<Rule, operands, Types, true, 2 * width>(tile, i);
        return whole;
    } else if constexpr (Types::spares_registers) {
        return 0;
    } else {
        const int whole = count / (2 * stride) * (2 * stride);
#pragma unroll 1
        for (int i = threadIdx.x * width; i < whole; i += 2 * stride) {
            update_at<Rule, operands, Types, true, width>(tile, i);
            update_at<Rule, operands, Types, true, width>(tile, i + stride);
        }
        return whole;
    }
}

template <class Rule, int operands, class Types>
__device__ inline void update_aligned(const Tile& shared, int count) {
    constexpr int width = Types::width;
    int done = 0;
    if (!shared.clips && !shared.writes_gradient) {
        read_anew();
        const Tile kept = shared;
        const Tile& tile = Types::spares_registers ? shared : kept;
        done = update_plain<Rule, operands, Types>(tile, count);
    }
    read_anew();  // the copy above does not stay in registers that this loop needs
    const Tile kept = shared;
    const Tile& tile = Types::spares_registers ? shared : kept;
#pragma unroll 1
    for (int i = done + threadIdx.x * width; i < count; i += APPLY_THREADS * width)
        update_at<Rule, operands, Types, false, width>(tile, i);
}

}  // namespace lrfused

// Apply: one pass over parameters, gradients and moments, a tile a block.
#pragma once

#include <type_traits>

#include "core/update.h"
#include "cuda/block.cuh"
#include "cuda/table.h"

namespace lrfused {

// Where a tile starts in each of its tensors (x is p without amsgrad), and what is done to it.
// A block shares it, so that registers are left for the elements.
struct Tile {
    Stretch p, g, m, v, x;
    int count;
    bool clips, writes_gradient, maximize;
    Record<double> record;
    Record<float> rounded;

    __device__ bool is_aligned(unsigned bytes) const {
        auto address = [](Stretch stretch) { return reinterpret_cast<uintptr_t>(stretch.data); };
        return (address(p) | address(g) | address(m) | address(v) | address(x)) % bytes == 0;
    }
};

// Elements of a thread that are 16 bytes of the widest of its types.
template <class P, class G, class M>
constexpr int WIDTH = static_cast<int>(
    16 / (sizeof(M) > sizeof(P) ? (sizeof(M) > sizeof(G) ? sizeof(M) : sizeof(G))
                                : (sizeof(P) > sizeof(G) ? sizeof(P) : sizeof(G))));

// With four elements a thread there are registers left for what stands in the tile.
template <class P, class G, class M>
constexpr bool SPARES_REGISTERS = WIDTH<P, G, M> != 4;

template <class C>
__device__ inline const Record<C>& record_of(const Tile& tile) {
    if constexpr (sizeof(C) == 8) return tile.record;
    else return tile.rounded;
}

// Unscaled and clipped; without a clip the factor after it is 1.
template <class C>
__device__ inline C changed(C g, const Record<C>& r, bool clips) {
    return clips ? clip_gradient(g, r) : g * r.before;
}

template <int width, class C, class G>
__device__ inline void change(const Elements<G, width>& g, C* changed_g, bool clips,
                              const Record<C>& r) {
#pragma unroll
    for (int j = 0; j < width; ++j) read_as(g.x[j], changed_g[j]);
    if (clips) {
#pragma unroll
        for (int j = 0; j < width; ++j) changed_g[j] = clip_gradient(changed_g[j], r);
    } else {
#pragma unroll
        for (int j = 0; j < width; ++j) changed_g[j] = changed_g[j] * r.before;
    }
}

// An element of whatever type.
template <class C>
__device__ inline C read(Stretch stretch, int i) {
    C value = 0;
    with_type(stretch.dtype, [&](auto number) {
        read_as(global(static_cast<const decltype(number)*>(stretch.data))[i], value);
    });
    return value;
}

template <class C>
__device__ inline void write(Stretch stretch, int i, C value) {
    with_type(stretch.dtype, [&](auto number) {
        write_as(value, global(static_cast<decltype(number)*>(stretch.data))[i]);
    });
}

// Any mixture of types, at any address, one by one.
template <class C, bool amsgrad>
__device__ inline void update_each(const Tile& tile, int first) {
#pragma unroll 1
    for (int i = first + threadIdx.x; i < tile.count; i += APPLY_THREADS) {
        read_anew();
        const Record<C>& r = record_of<C>(tile);
        C g = changed(read<C>(tile.g, i), r, tile.clips);
        C p = read<C>(tile.p, i), m = read<C>(tile.m, i), v = read<C>(tile.v, i), x = 0;
        if (amsgrad) x = read<C>(tile.x, i);
        adamw<C, amsgrad>(g, p, m, v, x, r);
        write(tile.p, i, p);
        write(tile.m, i, m);
        write(tile.v, i, v);
        if (amsgrad) write(tile.x, i, x);
        if (tile.writes_gradient) write(tile.g, i, tile.maximize ? -g : g);
    }
}

// A thread's elements from i on; all loads come before the first store. M is the type of m, v, x;
// plain: no clip by value, and nobody asked for the gradient.
template <class P, class G, class M, bool amsgrad, bool plain, int width>
__device__ inline void update_at(const Tile& tile, int i) {
    using C = std::conditional_t<sizeof(P) == 8, double, float>;
    constexpr bool spares_registers = SPARES_REGISTERS<P, G, M>;
    auto place = [&](const Stretch& stretch, auto number) {
        return static_cast<decltype(number)*>(stretch.data) + i;
    };
    if (spares_registers) read_anew();
    auto g = read_aligned<width>(place(tile.g, G()));
    auto p = read_aligned<width>(place(tile.p, P()));
    auto m = read_aligned<width>(place(tile.m, M()));
    auto v = read_aligned<width>(place(tile.v, M()));
    decltype(m) x;
    if (amsgrad) x = read_aligned<width>(place(tile.x, M()));
    if (spares_registers) read_anew();
    const Record<C>& r = record_of<C>(tile);
    C changed_g[width];
    if constexpr (!plain) change<width>(g, changed_g, tile.clips, r);
    if (!plain && tile.writes_gradient) {
#pragma unroll
        for (int j = 0; j < width; ++j)
            write_as(tile.maximize ? -changed_g[j] : changed_g[j], g.x[j]);
        write_aligned(g, place(tile.g, G()));
    }
#pragma unroll
    for (int j = 0; j < width; ++j) {
        if (sizeof(C) == 8) read_anew();
        C gradient, param, first, second, largest = 0;
        read_as(g.x[j], gradient);
        read_as(p.x[j], param);
        read_as(m.x[j], first);
        read_as(v.x[j], second);
        if (amsgrad) read_as(x.x[j], largest);
        gradient = plain ? gradient * r.before : changed_g[j];
        adamw<C, amsgrad>(gradient, param, first, second, largest, r);
        write_as(param, p.x[j]);
        write_as(first, m.x[j]);
        write_as(second, v.x[j]);
        if (amsgrad) write_as(largest, x.x[j]);
    }
    if (spares_registers) read_anew();
    write_aligned(p, place(tile.p, P()));
    write_aligned(m, place(tile.m, M()));
    write_aligned(v, place(tile.v, M()));
    if (amsgrad) write_aligned(x, place(tile.x, M()));
}

// The first elements of a plain tile, so many at a time that addresses are little of the work:
// 32 bytes of the widest type by each thread, or 16 twice. Returned is how many are done.
template <class P, class G, class M, bool amsgrad>
__device__ inline int update_plain(const Tile& tile, int count) {
    constexpr int width = WIDTH<P, G, M>, stride = APPLY_THREADS * width;
    if constexpr (amsgrad || sizeof(P) == 8) {
        return 0;  // there are no registers left
    } else if constexpr (WIDEST == 32) {
        if (!tile.is_aligned(32)) return 0;
        const int whole = count / (2 * width) * (2 * width);
#pragma unroll 1
        for (int i = threadIdx.x * 2 * width; i < whole; i += 2 * stride)
            update_at<P, G, M, amsgrad, true, 2 * width>(tile, i);
        return whole;
    } else if constexpr (SPARES_REGISTERS<P, G, M>) {
        return 0;
    } else {
        const int whole = count / (2 * stride) * (2 * stride);
#pragma unroll 1
        for (int i = threadIdx.x * width; i < whole; i += 2 * stride) {
            update_at<P, G, M, amsgrad, true, width>(tile, i);
            update_at<P, G, M, amsgrad, true, width>(tile, i + stride);
        }
        return whole;
    }
}

template <class P, class G, class M, bool amsgrad>
__device__ inline void update_aligned(const Tile& shared, int count) {
    constexpr int width = WIDTH<P, G, M>;
    int done = 0;
    if (!shared.clips && !shared.writes_gradient) {
        read_anew();
        const Tile kept = shared;
        const Tile& tile = SPARES_REGISTERS<P, G, M> ? shared : kept;
        done = update_plain<P, G, M, amsgrad>(tile, count);
    }
    read_anew();  // the copy above does not stay in registers that this loop needs
    const Tile kept = shared;
    const Tile& tile = SPARES_REGISTERS<P, G, M> ? shared : kept;
#pragma unroll 1
    for (int i = done + threadIdx.x * width; i < count; i += APPLY_THREADS * width)
        update_at<P, G, M, amsgrad, false, width>(tile, i);
}

}  // namespace lrfused

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

    __device__ bool is_aligned() const {
        auto address = [](Stretch stretch) { return reinterpret_cast<uintptr_t>(stretch.data); };
        return (address(p) | address(g) | address(m) | address(v) | address(x)) % 16 == 0;
    }
};

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
__device__ inline void change(const Elements<G, width>& g, C* changed_g, const Tile& tile,
                              const Record<C>& r) {
#pragma unroll
    for (int j = 0; j < width; ++j) read_as(g.x[j], changed_g[j]);
    if (tile.clips) {
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

// Sixteen bytes of the widest type by each thread; all loads come before the first store.
// M is the type of m, v and x.
template <class P, class G, class M, bool amsgrad>
__device__ inline void update_aligned(const Tile& shared, int count) {
    using C = std::conditional_t<sizeof(P) == 8, double, float>;
    constexpr size_t largest_size = sizeof(M) > sizeof(P) ? sizeof(M) : sizeof(P);
    constexpr int width = 16 / (largest_size > sizeof(G) ? largest_size : sizeof(G));
    // With four elements a thread there are registers left for what stands in the tile.
    constexpr bool spares_registers = width != 4;
    auto place = [](const Stretch& stretch, auto number) {
        return static_cast<decltype(number)*>(stretch.data);
    };
    read_anew();
    const Tile kept = shared;
    const Tile& tile = spares_registers ? shared : kept;
#pragma unroll 1
    for (int i = threadIdx.x * width; i < count; i += APPLY_THREADS * width) {
        if (spares_registers) read_anew();
        auto g = read_aligned<true, width>(place(tile.g, G()) + i);
        auto p = read_aligned<true, width>(place(tile.p, P()) + i);
        auto m = read_aligned<true, width>(place(tile.m, M()) + i);
        auto v = read_aligned<true, width>(place(tile.v, M()) + i);
        decltype(m) x;
        if (amsgrad) x = read_aligned<true, width>(place(tile.x, M()) + i);
        if (spares_registers) read_anew();
        const Record<C>& r = record_of<C>(tile);
        C gradient[width];
        change<width>(g, gradient, tile, r);
        if (tile.writes_gradient) {
#pragma unroll
            for (int j = 0; j < width; ++j)
                write_as(tile.maximize ? -gradient[j] : gradient[j], g.x[j]);
            write_aligned<true>(g, place(tile.g, G()) + i);
        }
#pragma unroll
        for (int j = 0; j < width; ++j) {
            if (sizeof(C) == 8) read_anew();
            C param, first, second, largest = 0;
            read_as(p.x[j], param);
            read_as(m.x[j], first);
            read_as(v.x[j], second);
            if (amsgrad) read_as(x.x[j], largest);
            adamw<C, amsgrad>(gradient[j], param, first, second, largest, r);
            write_as(param, p.x[j]);
            write_as(first, m.x[j]);
            write_as(second, v.x[j]);
            if (amsgrad) write_as(largest, x.x[j]);
        }
        if (spares_registers) read_anew();
        write_aligned<false>(p, place(tile.p, P()) + i);
        write_aligned<true>(m, place(tile.m, M()) + i);
        write_aligned<true>(v, place(tile.v, M()) + i);
        if (amsgrad) write_aligned<true>(x, place(tile.x, M()) + i);
    }
}

}  // namespace lrfused

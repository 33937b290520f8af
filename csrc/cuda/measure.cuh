// Measure: sums of squares and the magnitudes of a quarter of a chunk's lanes.
//
// A block of threads reads whole rows of 64 columns, 16 bytes of float32 a thread, and keeps the
// lanes of its columns in registers. Of float64 it takes a quarter in two turns.
#pragma once

#include "core/prologue.h"
#include "cuda/program.cuh"

namespace lrfused {

constexpr int SUMS = 8;  // of warps, in both turns where there are two
constexpr int QUARTER_BLOCKS = LANE_BLOCKS / QUARTERS;

// The bits of a magnitude: nan above infinity above all numbers.
__device__ inline uint32_t magnitude(float x) { return bits_of(x) & 0x7FFFFFFFu; }
__device__ inline uint64_t magnitude(double x) { return bits_of(x) & 0x7FFFFFFFFFFFFFFFu; }
__device__ inline double from_magnitude(uint32_t bits) { return float_from_bits(bits); }
__device__ inline double from_magnitude(uint64_t bits) { return double_from_bits(bits); }

template <class C>
using Magnitude = decltype(magnitude(C()));

template <class C>
struct AsItIs {
    __device__ C operator()(C x) const { return x; }
};

template <class C>
struct Clipped {
    C inverse, bound;
    __device__ C operator()(C x) const { return clip_value(x * inverse, bound); }
};

// The sum of a column's eight squares; where float32 cannot hold it, in float64.
__device__ inline double squares(const double* column, uint64_t) {
    return column_sum<ROWS, double, 1>(column);
}

__device__ inline double squares(const float* column, uint32_t largest) {
    float sum = column_sum<ROWS, float, 1>(column);
    if (sum_is_safe(sum) || !largest) return sum;
    return column_sum<ROWS, double, 1>(column);
}

// Smaller magnitudes are tiny: zero or subnormal.
template <class C, class T>
__device__ inline Magnitude<C> tiny_below() {
    return magnitude(smallest_normal<T, C>());
}

// Eight rows of a block enter the lanes; returned is their largest magnitude. Noted is whether any
// is tiny: that takes a predicate, where a count would take one of the registers, all of which are
// in use.
template <class C, int width, class T, class Change>
__device__ inline Magnitude<C> add_rows(const Elements<T, width>* rows, Change change,
                                        double* lanes, bool& has_tiny) {
    Magnitude<C> largest = 0;
#pragma unroll
    for (int j = 0; j < width; ++j) {
        C column[ROWS];
        Magnitude<C> of_column = 0;
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            C x;
            read_as(rows[r].x[j], x);
            column[r] = change(x);
            Magnitude<C> bits = magnitude(column[r]);
            of_column = bits > of_column ? bits : of_column;
            has_tiny |= bits < tiny_below<C, T>();
        }
        lanes[j] += squares(column, of_column);
        largest = of_column > largest ? of_column : largest;
    }
    return largest;
}

// Masked elements of rows are 0, whatever they were.
template <int width, class T>
__device__ inline void clear_rows(Elements<T, width>* rows, const Mask& mask) {
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        read_anew();  // registers for the bits of one row
        const uint32_t gone = ~mask.word(r * COLUMNS);
#pragma unroll
        for (int j = 0; j < width; ++j)
            if (gone >> j & 1) rows[r].x[j] = T();
    }
}

// How many of the rows' elements are tiny; the first `left` are no padding.
template <class C, int width, class T>
__device__ inline int count_tiny(const Elements<T, width>* rows, int left) {
    int count = 0;
#pragma unroll
    for (int r = 0; r < ROWS; ++r)
#pragma unroll
        for (int j = 0; j < width; ++j) {
            C x;
            read_as(rows[r].x[j], x);
            count += r * COLUMNS + j < left && magnitude(x) < tiny_below<C, T>();
        }
    return count;
}

template <int width, class T>
__device__ inline void read_rows(const T* x, int left, Elements<T, width>* rows) {
    const bool is_aligned = reinterpret_cast<uintptr_t>(x) % sizeof(rows->x) == 0;
    if (is_aligned && left > (ROWS - 1) * COLUMNS + width - 1) {
#pragma unroll
        for (int r = 0; r < ROWS; ++r) rows[r] = read_aligned<width>(x + r * COLUMNS);
        return;
    }
#pragma unroll
    for (int r = 0; r < ROWS; ++r)
#pragma unroll
        for (int j = 0; j < width; ++j)
            rows[r].x[j] = r * COLUMNS + j < left ? global(x)[r * COLUMNS + j] : T();
}

// What a block is about, and what its warps found; shared, so that registers are left for rows.
struct Found {
    TypedPointer g, p;  // where the chunk starts
    Mask mask;
    int64_t slot;  // of the results
    int count, quarter, tiny, masked;  // tiny ones of this quarter, masked ones of the chunk
    bool is_active, value_clip, adapts;
    double inverse, bound;
    double raw[SUMS], clipped[SUMS], param[SUMS], largest[WARPS];
};

// One quarter of the lanes of a chunk, by warps; returned is the largest magnitude that this thread
// saw. `counts`: tiny ones are counted, which masked ones are, too.
template <class C, class T, bool counts, class Change>
__device__ inline Magnitude<C> add_quarter_as(const TypedPointer& pointer, Found& found,
                                              Change change, double* sums) {
    constexpr int width = 16 / (sizeof(T) > sizeof(C) ? sizeof(T) : sizeof(C));
    constexpr int across = COLUMNS / width, at_once = MEASURE_THREADS / across;  // blocks
    constexpr int turns = QUARTER_BLOCKS / at_once;
    const int thread = thread_index();
    Magnitude<C> largest = 0;
    if (leads_warp()) sums[warp_index() + WARPS] = 0.0;
#pragma unroll 1
    for (int turn = 0; turn < turns; ++turn) {
        int block = found.quarter * QUARTER_BLOCKS + turn * at_once + thread / across;
        double lanes[width] = {};
#pragma unroll 1
        for (; block < CHUNK / BLOCK; block += LANE_BLOCKS) {
            read_anew();
            const int place = block * BLOCK + thread % across * width;
            if (place >= found.count) break;
            Elements<T, width> rows[ROWS];
            read_rows(static_cast<const T*>(pointer.data) + place, found.count - place, rows);
            if (found.mask.words) clear_rows(rows, found.mask.at(place));
            bool has_tiny = false;
            Magnitude<C> here = add_rows<C>(rows, change, lanes, has_tiny);
            largest = here > largest ? here : largest;
            if (counts && has_tiny)
                atomicAdd(&found.tiny, count_tiny<C>(rows, found.count - place));
        }
        // Found again from the block: the loop has no register for it.
        turn = turns == 1 ? 0 : (block - found.quarter * QUARTER_BLOCKS) % LANE_BLOCKS / at_once;
        double sum = warp_sum(pairwise<width>(lanes));
        if (leads_warp()) sums[warp_index() + turn * WARPS] = sum;
    }
    return largest;
}

template <class C, bool counts, class Change>
__device__ inline Magnitude<C> add_quarter(const TypedPointer& pointer, Found& found, Change change,
                                           double* sums) {
    Magnitude<C> largest = 0;
    with_type(pointer.dtype, [&](auto number) {
        largest =
            add_quarter_as<C, decltype(number), counts>(pointer, found, change, sums);
    });
    return largest;
}

template <class C>
__device__ inline void measure_as(Found& found) {
    Magnitude<C> largest = add_quarter<C, true>(found.g, found, AsItIs<C>(), found.raw);
    largest = over_warp(largest, [](auto x, auto y) { return x > y ? x : y; });
    if (leads_warp()) found.largest[warp_index()] = from_magnitude(largest);
    if (found.value_clip) {
        Clipped<C> clip = {static_cast<C>(found.inverse), static_cast<C>(found.bound)};
        add_quarter<C, false>(found.g, found, clip, found.clipped);
    }
    if (found.adapts) add_quarter<C, false>(found.p, found, AsItIs<C>(), found.param);
}

// Of a chunk, by the block that has its first quarter.
__device__ inline void count_masked(Found& found) {
    if (!found.mask.words || found.quarter) return;
    int count = 0;
#pragma unroll 1
    for (int i = thread_index() * 32; i < found.count; i += MEASURE_THREADS * 32) {
        const int left = found.count - i;
        count += __popc(~found.mask.word(i) & (left < 32 ? (1u << left) - 1 : ~0u));
    }
    atomicAdd(&found.masked, count);
}

__device__ inline int64_t slot_of(const Part& part) { return part.chunk * QUARTERS + part.quarter; }

__device__ inline void write_part(const Workspace& workspace, int64_t slot, double raw,
                                  double clipped, double param, double largest, int elements,
                                  int tiny) {
    workspace.raw[slot] = raw;
    workspace.clipped[slot] = clipped;
    workspace.param[slot] = param;
    workspace.largest[slot] = largest;
    workspace.elements[slot] = elements;
    workspace.tiny[slot] = tiny;
}

// By one thread: what the step's state says may change when this block has drawn its ticket.
template <class Launched>
__device__ inline void look_up(const Launched& a, const Part& part, double* registers,
                               Found& found) {
    const Piece& chunk = a.table.chunks[part.chunk];
    const Tensor& tensor = a.table.tensors[chunk.tensor];
    const GroupOptions& options = a.table.groups[tensor.group].options;
    const TypedPointer g = a.gradient(chunk.tensor);
    const int64_t now = a.state.words[STEP];
    found.slot = slot_of(part);
    found.is_active = g.dtype >= 0 && now >= options.start_step;
    if (!found.is_active) return;
    found.g = g.at(chunk.offset);
    found.p = tensor.p.at(chunk.offset);
    found.mask = {tensor.mask, chunk.offset};
    found.count = chunk.count;
    found.quarter = part.quarter;
    found.tiny = found.masked = 0;
    found.value_clip = options.value_clip;
    found.adapts = options.agc != AGC_OFF;
    found.inverse = inverse_scale(a);
    if (options.value_clip)
        found.bound = hyperparameter(a, tensor.group, CLIP_VALUE, now, registers);
}

// Thread 0 stores what was found.
template <class Launched>
__device__ inline void measure_part(const Launched& a, const Part& part, double* registers,
                                    Found& found) {
    if (thread_index() == 0) look_up(a, part, registers, found);
    __syncthreads();
    if (!found.is_active) {
        if (thread_index() == 0) write_part(a.workspace, found.slot, 0.0, 0.0, 0.0, 0.0, 0, 0);
        return;
    }
    if (found.p.dtype == FLOAT64) measure_as<double>(found);
    else measure_as<float>(found);
    count_masked(found);
    __syncthreads();
    if (thread_index()) return;
    double largest = 0.0;
    for (double x : found.largest) largest = propagating_maximum(largest, x);
    if (overflows(largest, found.inverse, found.p.dtype == FLOAT64))
        atomicOr(&a.workspace.decision->overflows, 1);
    write_part(a.workspace, found.slot, pairwise<SUMS>(found.raw),
               found.value_clip ? pairwise<SUMS>(found.clipped) : 0.0,
               found.adapts ? pairwise<SUMS>(found.param) : 0.0, largest,
               found.quarter == 0 ? found.count - found.masked : 0,  // once a chunk
               found.tiny - found.masked);
}

}  // namespace lrfused

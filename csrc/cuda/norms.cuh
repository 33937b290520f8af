// What the parts' sums say: coefficients of adaptive clipping, and the sums of a span before and
// after the clips by value and unit, all before plan. What other blocks wrote is read past this
// multiprocessor's own cache.
#pragma once

#include "cuda/measure.cuh"

namespace lrfused {

static_assert(SPAN == 2 * MEASURE_THREADS && SPAN_LANES == SPAN, "two numbers a thread");

using Turns = double[2][WARPS];

// The sum of 256 numbers, of which each thread has two neighbours; every thread gets it. Calls take
// turns with two places: before one is written anew, the barrier of the other was passed.
__device__ inline double block_sum(double even, double odd, Turns& turns, int& turn) {
    turn = 1 - turn;
    const double x = warp_sum(even + odd);
    double* of_warps = turns[turn];
    if (leads_warp()) of_warps[warp_index()] = x;
    __syncthreads();
    static_assert(WARPS == 4, "a tree over four");
    return (of_warps[0] + of_warps[1]) + (of_warps[2] + of_warps[3]);
}

// Chunk sums in the order of core/norm.h, by a block: value(i) for i in [0, count).
template <class Value>
__device__ inline double combine_by_block(int64_t count, Turns& turns, int& turn, Value value) {
    const int mine = 2 * thread_index();
    double lanes[2] = {};
    for (int64_t first = 0; first < count; first += SPAN) {
        double x[2] = {};
        for (int k = 0; k < 2; ++k)
            if (first + mine + k < count) x[k] = value(first + mine + k);
        const double span = block_sum(x[0], x[1], turns, turn);
        for (int k = 0; k < 2; ++k)
            if (first / SPAN % SPAN_LANES == mine + k) lanes[k] += span;
    }
    return block_sum(lanes[0], lanes[1], turns, turn);
}

// The sum of a chunk from those of its quarters.
__device__ inline double chunk_sum(const double* sums, int64_t chunk) {
    const double* x = sums + chunk * QUARTERS;
    static_assert(QUARTERS == 4, "a tree over four");
    return (x[0] + x[1]) + (x[2] + x[3]);
}

__device__ inline double chunk_largest(const double* magnitudes, int64_t chunk) {
    double largest = 0.0;
    for (int i = 0; i < QUARTERS; ++i)
        largest = propagating_maximum(largest, magnitudes[chunk * QUARTERS + i]);
    return largest;
}

// Of the unscaled, averaged, value-clipped gradient.
__device__ inline double unscaled_sum(const Workspace& workspace, int64_t chunk, bool value_clip,
                                      double inverse) {
    if (value_clip) return chunk_sum(workspace.clipped, chunk);
    return chunk_sum(workspace.raw, chunk) * (inverse * inverse);
}

// The factor of a unit of several chunks, all of which were measured; by a block.
__device__ inline void plan_unit(const Arguments& a, const LongUnit& unit, double* registers,
                                 Turns& turns) {
    const Piece& chunk = a.table.chunks[unit.first_chunk];
    const int group = a.table.tensors[chunk.tensor].group;
    const bool value_clip = a.table.groups[group].options.value_clip;
    const double inverse = inverse_scale(a);
    int turn = 0;
    const double gradient = combine_by_block(unit.chunks, turns, turn, [&](int64_t i) {
        return unscaled_sum(a.workspace, unit.first_chunk + i, value_clip, inverse);
    });
    const double weight = combine_by_block(unit.chunks, turns, turn, [&](int64_t i) {
        return chunk_sum(a.workspace.param, unit.first_chunk + i);
    });
    if (thread_index() != 0) return;
    const double threshold = hyperparameter(a, group, AGC, a.state.words[STEP], registers);
    a.workspace.factors[chunk.unit] = agc_coefficient(threshold, gradient, weight);
}

// Bounds and thresholds of the groups of a span; other spans write the same there.
__device__ inline void evaluate_thresholds(const Arguments& a, const Span& span, int64_t now,
                                           double* registers) {
    const int lanes = program_lanes(a.table);
    if (thread_index() >= lanes) return;
    double* mine = registers + thread_index() * program_stride(a.table);
    for (int i = thread_index(); i < 2 * span.groups; i += lanes) {
        const int group = span.first_group + i / 2, slot = i % 2 ? AGC : CLIP_VALUE;
        const GroupOptions& options = a.table.groups[group].options;
        if (slot == AGC ? options.agc != AGC_OFF : options.value_clip)
            a.workspace.thresholds[2 * group + i % 2] = hyperparameter(a, group, slot, now, mine);
    }
}

// What a chunk says; without a gradient, or in a group that has not started, nothing.
template <class Launched>
__device__ inline Sums sums_of_chunk(const Launched& a, int64_t c, int64_t now,
                                     double inverse) {
    const Workspace& workspace = a.workspace;
    Sums sums = {};
    sums.raw = chunk_sum(workspace.raw, c);
    sums.elements = chunk_sum(workspace.elements, c);
    sums.tiny = chunk_sum(workspace.tiny, c);
    sums.largest = chunk_largest(workspace.largest, c);
    if (!a.table.clips_before_norm) return sums;
    const Piece& chunk = a.table.chunks[c];
    const int group = a.table.tensors[chunk.tensor].group;
    const GroupOptions& options = a.table.groups[group].options;
    if (a.gradient(chunk.tensor).dtype < 0 || now < options.start_step) return sums;
    const double* thresholds = workspace.thresholds + 2 * group;
    const double unscaled = unscaled_sum(workspace, c, options.value_clip, inverse);
    double factor = 1.0, scaled = sums.largest * inverse;
    if (options.agc && chunk.is_whole_unit) {
        factor = agc_coefficient(thresholds[1], unscaled, chunk_sum(workspace.param, c));
        workspace.factors[chunk.unit] = factor;
    } else if (options.agc) {
        factor = workspace.factors[chunk.unit];
    }
    if (options.value_clip && scaled > thresholds[0]) scaled = thresholds[0];
    sums.seen = unscaled * (factor * factor);
    sums.largest_seen = scaled * factor;
    return sums;
}

__device__ inline Sums of_both(const Sums& x, const Sums& y) {
    return {x.raw + y.raw,
            x.seen + y.seen,
            propagating_maximum(x.largest, y.largest),
            propagating_maximum(x.largest_seen, y.largest_seen),
            x.elements + y.elements,
            x.tiny + y.tiny};
}

__device__ inline Sums of_other_lane(const Sums& x, int step) {
    auto other = [&](double mine) { return __shfl_xor_sync(EVERYBODY, mine, step); };
    return {other(x.raw),          other(x.seen),     other(x.largest),
            other(x.largest_seen), other(x.elements), other(x.tiny)};
}

// Of 256 neighbours, of which each thread has two; every thread gets the result. All sums go
// through one barrier; since what stood in `of_warps` was read there has been another one.
__device__ inline Sums combine(const Sums (&x)[2], Sums* of_warps) {
    Sums sums = of_both(x[0], x[1]);
    for (int step = 1; step < WARP; step *= 2) sums = of_both(sums, of_other_lane(sums, step));
    if (leads_warp()) of_warps[warp_index()] = sums;
    __syncthreads();
    static_assert(WARPS == 4, "a tree over four");
    return of_both(of_both(of_warps[0], of_warps[1]), of_both(of_warps[2], of_warps[3]));
}

// All chunks of a span side by side, and the factors of its units; by a block.
template <class Launched>
__device__ inline void plan_span(const Launched& a, int64_t s, double* registers,
                                 Sums* of_warps) {
    const double inverse = inverse_scale(a);
    const int64_t now = a.state.words[STEP];
    if (a.table.clips_before_norm) {
        evaluate_thresholds(a, a.table.spans[s], now, registers);
        __syncthreads();
    }
    Sums chunks[2] = {};
    for (int k = 0; k < 2; ++k) {
        const int64_t c = s * SPAN + 2 * thread_index() + k;
        if (c < a.table.chunks_count) chunks[k] = sums_of_chunk(a, c, now, inverse);
    }
    const Sums sums = combine(chunks, of_warps);
    if (thread_index() == 0) a.workspace.spans[s] = sums;
}

// The sums of all spans, which enter 256 lanes.
__device__ inline Sums sums_of_spans(const Table& table, const Workspace& workspace,
                                     Sums* of_warps) {
    Sums lanes[2] = {};
    const int count = static_cast<int>(table.spans_count);
    for (int k = 0; k < 2; ++k)
#pragma unroll 1
        for (int s = 2 * thread_index() + k; s < count; s += SPAN_LANES) {
            const Sums* span = workspace.spans + s;
            lanes[k].raw += span->raw;
            lanes[k].seen += span->seen;
            lanes[k].elements += span->elements;
            lanes[k].tiny += span->tiny;
            lanes[k].largest = propagating_maximum(lanes[k].largest, span->largest);
            lanes[k].largest_seen =
                propagating_maximum(lanes[k].largest_seen, span->largest_seen);
        }
    return combine(lanes, of_warps);
}

}  // namespace lrfused

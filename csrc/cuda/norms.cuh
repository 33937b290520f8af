// What the parts' sums say: coefficients of adaptive clipping, and the sums of a span before and
// after the clips by value and unit, all before plan. What other blocks wrote is read past this
// multiprocessor's own cache.
#pragma once

#include "cuda/measure.cuh"

namespace lrfused {

static_assert(SPAN == 2 * MEASURE_THREADS && SPAN_LANES == SPAN, "two numbers a thread");

// Of 256 numbers, of which each thread has two neighbours; every thread gets the result.
template <class Choose>
__device__ inline double over_block(double even, double odd, double* of_warps, Choose choose) {
    double x = over_warp(choose(even, odd), choose);
    __syncthreads();  // what stood there has been read
    if (leads_warp()) of_warps[warp_index()] = x;
    __syncthreads();
    static_assert(WARPS == 4, "a tree over four");
    return choose(choose(of_warps[0], of_warps[1]), choose(of_warps[2], of_warps[3]));
}

__device__ inline double block_sum(double even, double odd, double* of_warps) {
    return over_block(even, odd, of_warps, [](double x, double y) { return x + y; });
}

__device__ inline double block_largest(double even, double odd, double* of_warps) {
    return over_block(even, odd, of_warps, propagating_maximum);
}

// Chunk sums in the order of core/norm.h, by a block: value(i) for i in [0, count).
template <class Value>
__device__ inline double combine_by_block(int64_t count, double* of_warps, Value value) {
    const int mine = 2 * thread_index();
    double lanes[2] = {};
    for (int64_t first = 0; first < count; first += SPAN) {
        double x[2] = {};
        for (int k = 0; k < 2; ++k)
            if (first + mine + k < count) x[k] = value(first + mine + k);
        const double span = block_sum(x[0], x[1], of_warps);
        for (int k = 0; k < 2; ++k)
            if (first / SPAN % SPAN_LANES == mine + k) lanes[k] += span;
    }
    return block_sum(lanes[0], lanes[1], of_warps);
}

// The sum of a chunk from those of its quarters.
__device__ inline double chunk_sum(const double* sums, int64_t chunk) {
    const double* x = sums + chunk * QUARTERS;
    static_assert(QUARTERS == 4, "a tree over four");
    return (__ldcg(x) + __ldcg(x + 1)) + (__ldcg(x + 2) + __ldcg(x + 3));
}

__device__ inline double chunk_largest(const double* magnitudes, int64_t chunk) {
    double largest = 0.0;
    for (int i = 0; i < QUARTERS; ++i)
        largest = propagating_maximum(largest, __ldcg(magnitudes + chunk * QUARTERS + i));
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
                                 double* of_warps) {
    const Piece& chunk = a.table.chunks[unit.first_chunk];
    const int group = a.table.tensors[chunk.tensor].group;
    const bool value_clip = a.table.groups[group].options.value_clip;
    const double inverse = inverse_scale(a);
    const double gradient = combine_by_block(unit.chunks, of_warps, [&](int64_t i) {
        return unscaled_sum(a.workspace, unit.first_chunk + i, value_clip, inverse);
    });
    const double weight = combine_by_block(unit.chunks, of_warps, [&](int64_t i) {
        return chunk_sum(a.workspace.param, unit.first_chunk + i);
    });
    if (thread_index() != 0) return;
    const double threshold = hyperparameter(a, group, AGC, a.state.words[STEP], registers);
    a.workspace.factors[chunk.unit] = agc_coefficient(threshold, gradient, weight);
}

// Bounds and thresholds of the groups of a span; other spans and plan write the same there.
__device__ inline void evaluate_thresholds(const Arguments& a, const Span& span, int64_t now,
                                           double* registers) {
    const int lanes = program_lanes(a.table);
    if (thread_index() >= lanes) return;
    double* mine = registers + thread_index() * program_stride(a.table);
    for (int i = thread_index(); i < 2 * span.groups; i += lanes) {
        const int group = span.first_group + i / 2, slot = i % 2 ? AGC : CLIP_VALUE;
        const GroupOptions& options = a.table.groups[group].options;
        if (slot == AGC ? options.agc != AGC_OFF : options.value_clip)
            a.workspace.hyperparameters[group * a.options.slots + slot] =
                hyperparameter(a, group, slot, now, mine);
    }
}

// What a chunk says; without a gradient, or in a group that has not started, nothing.
template <class Launched>
__device__ inline Sums sums_of_chunk(const Launched& a, int64_t c, int64_t now,
                                     double inverse) {
    const Workspace& workspace = a.workspace;
    Sums sums = {};
    sums.raw = chunk_sum(workspace.raw, c);
    sums.largest = chunk_largest(workspace.largest, c);
    if (!a.table.clips_before_norm) return sums;
    const Piece& chunk = a.table.chunks[c];
    const int group = a.table.tensors[chunk.tensor].group;
    const GroupOptions& options = a.table.groups[group].options;
    if (a.gradient(chunk.tensor).dtype < 0 || now < options.start_step) return sums;
    const double* thresholds = workspace.hyperparameters + group * a.options.slots;
    const double unscaled = unscaled_sum(workspace, c, options.value_clip, inverse);
    double factor = 1.0, scaled = sums.largest * inverse;
    if (options.agc && chunk.is_whole_unit) {
        factor = agc_coefficient(thresholds[AGC], unscaled, chunk_sum(workspace.param, c));
        workspace.factors[chunk.unit] = factor;
    } else if (options.agc) {
        factor = __ldcg(workspace.factors + chunk.unit);
    }
    if (options.value_clip && scaled > thresholds[CLIP_VALUE]) scaled = thresholds[CLIP_VALUE];
    sums.seen = unscaled * (factor * factor);
    sums.largest_seen = scaled * factor;
    return sums;
}

// Two sets of sums of squares and magnitudes a thread become one, which every thread gets.
__device__ inline Sums combine(const Table& table, const Sums (&x)[2], double* of_warps) {
    Sums sums = {};
    sums.raw = block_sum(x[0].raw, x[1].raw, of_warps);
    sums.largest = block_largest(x[0].largest, x[1].largest, of_warps);
    if (!table.clips_before_norm) return sums;
    sums.seen = block_sum(x[0].seen, x[1].seen, of_warps);
    sums.largest_seen = block_largest(x[0].largest_seen, x[1].largest_seen, of_warps);
    return sums;
}

// The sum of counts by part over a span, which every thread gets.
__device__ inline double count_in_span(const Table& table, const double* counts, int64_t s,
                                       double* of_warps) {
    double x[2] = {};
    for (int k = 0; k < 2; ++k) {
        const int64_t c = s * SPAN + 2 * thread_index() + k;
        if (c < table.chunks_count) x[k] = chunk_sum(counts, c);
    }
    return block_sum(x[0], x[1], of_warps);
}

// All chunks of a span side by side, and the factors of its units; by a block.
template <class Launched>
__device__ inline void plan_span(const Launched& a, int64_t s, double* registers,
                                 double* of_warps) {
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
    Sums sums = combine(a.table, chunks, of_warps);
    sums.elements = count_in_span(a.table, a.workspace.elements, s, of_warps);
    sums.tiny = count_in_span(a.table, a.workspace.tiny, s, of_warps);
    if (thread_index() == 0) a.workspace.spans[s] = sums;
}

// The sums of all spans, which enter 256 lanes.
__device__ inline Sums sums_of_spans(const Table& table, const Workspace& workspace,
                                     double* of_warps) {
    Sums lanes[2] = {};
    for (int k = 0; k < 2; ++k)
        for (int64_t s = 2 * thread_index() + k; s < table.spans_count; s += SPAN_LANES) {
            const Sums* span = workspace.spans + s;
            lanes[k].raw += __ldcg(&span->raw);
            lanes[k].seen += __ldcg(&span->seen);
            lanes[k].elements += __ldcg(&span->elements);
            lanes[k].tiny += __ldcg(&span->tiny);
            lanes[k].largest = propagating_maximum(lanes[k].largest, __ldcg(&span->largest));
            lanes[k].largest_seen =
                propagating_maximum(lanes[k].largest_seen, __ldcg(&span->largest_seen));
        }
    Sums sums = combine(table, lanes, of_warps);
    sums.elements = block_sum(lanes[0].elements, lanes[1].elements, of_warps);
    sums.tiny = block_sum(lanes[0].tiny, lanes[1].tiny, of_warps);
    return sums;
}

}  // namespace lrfused

// What the parts' sums say: coefficients of adaptive clipping, and the norms before and after the
// clips by value and unit. What other blocks wrote is read past this multiprocessor's own cache.
#pragma once

#include "cuda/measure.cuh"

namespace lrfused {

constexpr int LANE_WARPS = CHUNK_LANES / WARP;
constexpr int BLOCK_LANES = CHUNK_LANES / MEASURE_THREADS;  // of a thread

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
__device__ inline double unscaled_sum(const Arguments& a, int64_t chunk, bool value_clip,
                                      double inverse) {
    if (value_clip) return chunk_sum(a.room.clipped, chunk);
    return chunk_sum(a.room.raw, chunk) * (inverse * inverse);
}

// Chunk sums in the order of the table, by one warp: value(i) for i in [0, count).
template <class Value>
__device__ inline double combine_by_warp(int64_t count, Value value) {
    double lanes[LANE_WARPS] = {};
    for (int64_t first = thread_index() % WARP; first < count; first += CHUNK_LANES)
#pragma unroll
        for (int k = 0; k < LANE_WARPS; ++k)
            if (first + k * WARP < count) lanes[k] += value(first + k * WARP);
#pragma unroll
    for (int k = 0; k < LANE_WARPS; ++k) lanes[k] = warp_sum(lanes[k]);
    return pairwise<LANE_WARPS>(lanes);
}

// Units of one chunk are lanes, units of several take a warp each.
__device__ inline void plan_units(const Arguments& a, double inverse) {
    const Table& table = a.table;
    auto coefficient = [&](const Unit& unit, double gradient, double weight) {
        if (!table.groups[unit.group].options.agc) return 1.0;
        return agc_coefficient(a.room.groups[unit.group].agc, gradient, weight);
    };
    auto gradient_sum = [&](const Unit& unit, int64_t i) {
        bool value_clip = table.groups[unit.group].options.value_clip;
        return unscaled_sum(a, unit.first_chunk + i, value_clip, inverse);
    };
    for (int64_t u = thread_index(); u < table.units_count; u += blockDim.x) {
        const Unit& unit = table.units[u];
        if (unit.chunks > 1) continue;
        double gradient = unit.chunks ? gradient_sum(unit, 0) : 0.0;
        double weight = unit.chunks ? chunk_sum(a.room.param, unit.first_chunk) : 0.0;
        a.room.factors[u] = coefficient(unit, gradient, weight);
    }
    for (int64_t i = warp_index(); i < table.long_units_count; i += WARPS) {
        const Unit& unit = table.units[table.long_units[i]];
        double gradient = combine_by_warp(
            unit.chunks, [&](int64_t chunk) { return gradient_sum(unit, chunk); });
        double weight = combine_by_warp(unit.chunks, [&](int64_t chunk) {
            return chunk_sum(a.room.param, unit.first_chunk + chunk);
        });
        if (leads_warp()) a.room.factors[table.long_units[i]] = coefficient(unit, gradient, weight);
    }
}

// Before any clip, and as the global clip sees them: sums over lanes of a warp, largest of a warp.
struct Norms {
    double raw[LANE_WARPS], seen[LANE_WARPS], largest[WARPS], largest_seen[WARPS];
};

// Each thread is two of the 256 lanes.
__device__ inline void add_chunks(const Arguments& a, double inverse, Norms& norms) {
    const Table& table = a.table;
    double raw[BLOCK_LANES] = {}, seen[BLOCK_LANES] = {}, largest = 0.0, largest_seen = 0.0;
    for (int64_t first = thread_index(); first < table.chunks_count; first += CHUNK_LANES)
#pragma unroll
        for (int k = 0; k < BLOCK_LANES; ++k) {
            int64_t c = first + k * MEASURE_THREADS;
            if (c >= table.chunks_count) break;
            double magnitude = chunk_largest(a.room.largest, c);
            raw[k] += chunk_sum(a.room.raw, c);
            largest = propagating_maximum(largest, magnitude);
            if (!table.clips_before_norm) continue;
            const Piece& chunk = table.chunks[c];
            int group = table.tensors[chunk.tensor].group;
            double factor = table.adapts ? a.room.factors[chunk.unit] : 1.0;
            double bound = a.room.groups[group].bound, scaled = magnitude * inverse;
            bool value_clip = table.groups[group].options.value_clip;
            seen[k] += unscaled_sum(a, c, value_clip, inverse) * (factor * factor);
            scaled = (scaled > bound ? bound : scaled) * factor;
            largest_seen = propagating_maximum(largest_seen, scaled);
        }
    for (int k = 0; k < BLOCK_LANES; ++k) {
        raw[k] = warp_sum(raw[k]);
        seen[k] = warp_sum(seen[k]);
        if (!leads_warp()) continue;
        norms.raw[k * WARPS + warp_index()] = raw[k];
        norms.seen[k * WARPS + warp_index()] = seen[k];
    }
    largest = warp_largest(largest);
    largest_seen = warp_largest(largest_seen);
    if (!leads_warp()) return;
    norms.largest[warp_index()] = largest;
    norms.largest_seen[warp_index()] = largest_seen;
}

__device__ inline double largest_of(const double* warps) {
    double largest = 0.0;
    for (int i = 0; i < WARPS; ++i) largest = propagating_maximum(largest, warps[i]);
    return largest;
}

}  // namespace lrfused

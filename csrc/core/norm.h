// The norm as lrfused/numerics/norm.py defines it: sizes, pairwise tree, combining of chunks.
#pragma once

#include "core/common.h"

namespace lrfused {

constexpr int64_t CHUNK = 65536;
constexpr int BLOCK = 512, ROWS = 8, COLUMNS = 64, LANE_BLOCKS = 32;
constexpr int SPAN = 256, SPAN_LANES = 256;  // chunks per span; lanes that span sums are added to

// The sum of the squares of a column, neighbours first; row r is x[r * stride]. A short block may
// use fewer rows with the same bits: missing rows count as zeros, which change no sum.
template <int rows, class Sum, int stride = COLUMNS, class Element>
LRF_HD inline Sum column_sum(const Element* x) {
    if constexpr (rows == 1) {
        Sum value = static_cast<Sum>(x[0]);
        return value * value;
    } else {
        return column_sum<rows / 2, Sum, stride>(x) +
               column_sum<rows / 2, Sum, stride>(x + rows / 2 * stride);
    }
}

LRF_HD inline bool sum_is_safe(float partial) { return partial >= 0x1p-100f && partial <= 0x1p127f; }

// The sum of 2^k numbers, neighbours first; the numbers are overwritten.
LRF_HD inline double pairwise_sum(double* x, int count) {
    constexpr int WIDTH = 8;  // through registers, so that compilers vectorise it
    for (; count >= 2 * WIDTH; count /= 2)
        for (int i = 0; i < count / 2; i += WIDTH) {
            double sums[WIDTH];
            for (int j = 0; j < WIDTH; ++j) sums[j] = x[2 * (i + j)] + x[2 * (i + j) + 1];
            for (int j = 0; j < WIDTH; ++j) x[i + j] = sums[j];
        }
    for (; count > 1; count /= 2)
        for (int i = 0; i < count / 2; ++i) x[i] = x[2 * i] + x[2 * i + 1];
    return x[0];
}

// The sum of the chunk sums value(i), i in [0, count), given in the order of the table.
template <class Value>
inline double combine(int64_t count, Value value) {
    if (count == 1) return value(0);
    double lanes[SPAN_LANES] = {};
    for (int64_t first = 0; first < count; first += SPAN) {
        double span[SPAN] = {};
        const int64_t chunks = count - first < SPAN ? count - first : SPAN;
        for (int64_t i = 0; i < chunks; ++i) span[i] = value(first + i);
        lanes[first / SPAN % SPAN_LANES] += pairwise_sum(span, SPAN);
    }
    return pairwise_sum(lanes, SPAN_LANES);
}

// The maximum; nan if either is nan.
LRF_HD inline double propagating_maximum(double x, double y) { return x > y || x != x ? x : y; }

}  // namespace lrfused

// Measure: sums of squares and the magnitudes of a chunk. Included by kernels.inl.

namespace lrfused {
namespace LRF_ISA {

// Adds a block's 64 column sums to their float64 lanes.
template <int rows>
void add_rows(const double* __restrict x, double* __restrict lanes) {
    for (int c = 0; c < COLUMNS; ++c) lanes[c] += column_sum<rows, double>(x + c);
}

template <int rows>
void add_rows(const float* __restrict x, double* __restrict lanes) {
    float sums[COLUMNS];
    int unsafe = 0;
    for (int c = 0; c < COLUMNS; ++c) {
        sums[c] = column_sum<rows, float>(x + c);
        unsafe |= !sum_is_safe(sums[c]);
    }
    if (!unsafe) {
        for (int c = 0; c < COLUMNS; ++c) lanes[c] += static_cast<double>(sums[c]);
        return;
    }
    double exact[COLUMNS];  // of all columns: gradients that are 0, as masked ones are, come here
    for (int c = 0; c < COLUMNS; ++c) exact[c] = column_sum<rows, double>(x + c);
    for (int c = 0; c < COLUMNS; ++c)
        lanes[c] += sum_is_safe(sums[c]) ? static_cast<double>(sums[c]) : exact[c];
}

// An absolute value as bits, which order nan above infinity above all numbers.
inline int32_t magnitude(float x) { return static_cast<int32_t>(bits_of(x) & 0x7FFFFFFFu); }
inline int64_t magnitude(double x) {
    return static_cast<int64_t>(bits_of(x) & 0x7FFFFFFFFFFFFFFFu);
}

// The largest magnitude by column, and how many are at least the smallest normal one: no zeros, and
// so none of the padding. They are counted only in blocks that have a smaller one: to find the
// minimum takes less time than to count.
template <class C>
struct Magnitudes {
    using Bits = decltype(magnitude(C()));

    Bits smallest_normal = 0, largest[COLUMNS] = {}, normal = 0;

    explicit Magnitudes(int dtype) {
        with_type(dtype, [&](auto number) {
            smallest_normal = magnitude(lrfused::smallest_normal<decltype(number), C>());
        });
    }

    // Rarely needed, and so out of the way.
    LRF_NOINLINE Bits count(const C* x, int size) const {
        Bits found = 0;
        for (int i = 0; i < size; ++i) found += magnitude(x[i]) >= smallest_normal;
        return found;
    }

    template <int rows>
    void add_rows(const C* __restrict x) {
        const Bits bound = smallest_normal;
        Bits has_tiny = 0;
        for (int c = 0; c < COLUMNS; ++c) {
            Bits most = largest[c], least = magnitude(x[c]);
            for (int r = 0; r < rows; ++r) {
                const Bits bits = magnitude(x[r * COLUMNS + c]);
                most = bits > most ? bits : most;
                least = bits < least ? bits : least;
            }
            largest[c] = most;
            has_tiny |= least < bound;
        }
        normal += has_tiny ? count(x, rows * COLUMNS) : rows * COLUMNS;
    }

    void add(const C* x, int rows) {
        if (rows == 8) return add_rows<8>(x);
        if (rows == 4) return add_rows<4>(x);
        if (rows == 2) return add_rows<2>(x);
        add_rows<1>(x);
    }

    Bits largest_of_all() const {
        Bits most = 0;
        for (const Bits bits : largest) most = bits > most ? bits : most;
        return most;
    }
};

inline double from_bits(int32_t bits) { return float_from_bits(static_cast<uint32_t>(bits)); }
inline double from_bits(int64_t bits) { return double_from_bits(static_cast<uint64_t>(bits)); }

// The float64 lanes of a chunk; only the lanes of blocks that a short chunk has are used.
struct Lanes {
    alignas(64) double lanes[LANE_BLOCKS * COLUMNS];
    int used;

    explicit Lanes(int64_t count) : used(1) {
        while (used < LANE_BLOCKS && used * BLOCK < count) used *= 2;
        for (int i = 0; i < used * COLUMNS; ++i) lanes[i] = 0.0;
    }

    template <class C>
    void add(const C* block, int rows, int64_t index) {
        double* target = lanes + (index % LANE_BLOCKS) * COLUMNS;
        if (rows == 8) return add_rows<8>(block, target);
        if (rows == 4) return add_rows<4>(block, target);
        if (rows == 2) return add_rows<2>(block, target);
        add_rows<1>(block, target);
    }

    double sum() { return pairwise_sum(lanes, used * COLUMNS); }
};

// The number of rows for `count` elements: 1, 2, 4 or 8.
inline int rows_of(int count) {
    int rows = 1;
    while (rows * COLUMNS < count) rows *= 2;
    return rows;
}

// A block as whole rows in the compute type, padded with zeros.
template <class C>
const C* open_rows(TypedPointer pointer, C* buffer, int count, int rows) {
    const C* block = open_tile(pointer, buffer, count);
    if (count == rows * COLUMNS) return block;
    for (int i = 0; i < count; ++i) buffer[i] = block[i];
    for (int i = count; i < rows * COLUMNS; ++i) buffer[i] = 0;
    return buffer;
}

// Masked elements of a block are 0, whatever they were.
template <class C>
const C* without_masked(const C* block, C* buffer, const Mask& mask, int count, int padded) {
    if (!mask.words) return block;
    if (block != buffer) memcpy(buffer, block, static_cast<size_t>(padded) * sizeof(C));
    clear_masked({buffer, own_dtype<C>()}, mask, count);
    return buffer;
}

// Asks for what is read a few blocks later, as far as the chunk goes: one stream of loads with this
// much arithmetic does not keep enough of them in flight by itself. (Always inlined: a function that
// does nothing else has no effect that g++ knows of, and is left out.)
LRF_ALWAYS_INLINE void prefetch_block(TypedPointer chunk, int64_t element, int64_t count) {
    constexpr int64_t AHEAD = 8192, LINE = 64;  // bytes
    const int64_t first = (element << size_shift(chunk.dtype)) + AHEAD;
    const int64_t end = std::min(first + (int64_t(BLOCK) << size_shift(chunk.dtype)),
                                 count << size_shift(chunk.dtype));
    for (int64_t i = first; i < end; i += LINE)
        LRF_PREFETCH(static_cast<const char*>(chunk.data) + i);
}

// Calls body(block, rows, index) for each block.
template <class C, class Body>
void over_blocks(TypedPointer pointer, const Mask& mask, int64_t count, Body body) {
    alignas(64) C buffer[BLOCK];
    for (int64_t i = 0, index = 0; i < count; i += BLOCK, ++index) {
        prefetch_block(pointer, i, count);
        int size = static_cast<int>(count - i < BLOCK ? count - i : BLOCK), rows = rows_of(size);
        const C* block = open_rows(pointer.at(i), buffer, size, rows);
        body(without_masked(block, buffer, mask.at(i), size, rows * COLUMNS), rows, index);
    }
}

template <class C>
double sum_of_squares(TypedPointer pointer, const Mask& mask, int64_t count) {
    Lanes lanes(count);
    over_blocks<C>(pointer, mask, count, [&](const C* x, int rows, int64_t i) { lanes.add(x, rows, i); });
    return lanes.sum();
}

template <class C, bool value_clip>
Measured measure_as(const MeasureTask& task) {
    alignas(64) C clipped[BLOCK];
    Lanes raw(task.count), after(value_clip ? task.count : 0);
    const C inverse = static_cast<C>(task.inverse), bound = static_cast<C>(task.bound);
    Magnitudes<C> magnitudes(task.g.dtype);
    over_blocks<C>(task.g, task.mask, task.count, [&](const C* g, int rows, int64_t index) {
        raw.add(g, rows, index);
        magnitudes.add(g, rows);
        if (!value_clip) return;
        for (int j = 0; j < rows * COLUMNS; ++j) clipped[j] = clip_value(g[j] * inverse, bound);
        after.add(clipped, rows, index);
    });
    Measured measured;
    measured.raw = raw.sum();
    measured.largest = from_bits(magnitudes.largest_of_all());
    const int64_t elements = kept_of(task.mask, task.count);
    measured.elements = static_cast<double>(elements);
    measured.tiny = static_cast<double>(elements - magnitudes.normal);
    if (value_clip) measured.clipped = after.sum();
    if (task.p.data) measured.param = sum_of_squares<C>(task.p, task.mask, task.count);
    return measured;
}

template <class C>
Measured measure_in(const MeasureTask& task) {
    return task.value_clip ? measure_as<C, true>(task) : measure_as<C, false>(task);
}

Measured measure(const MeasureTask& task) {
    return task.double_precision ? measure_in<double>(task) : measure_in<float>(task);
}

}  // namespace LRF_ISA
}  // namespace lrfused

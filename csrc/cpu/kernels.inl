// The inner loops, compiled once an instruction set; LRF_ISA is the namespace of this one.
// The loops are plain: what matters is that lanes are independent, so that the compiler's
// vectors compute what its scalars would, bit for bit.

namespace lrfused {
namespace LRF_ISA {

constexpr int TILE = BLOCK;

template <class T, class C>
void widen_tile(const void* source, C* __restrict target, int count) {
    const T* __restrict x = static_cast<const T*>(source);
    for (int i = 0; i < count; ++i) read_as(x[i], target[i]);
}

template <class T, class C>
void narrow_tile(const C* __restrict source, void* target, int count) {
    T* __restrict x = static_cast<T*>(target);
    for (int i = 0; i < count; ++i) write_as(source[i], x[i]);
}

template <class C>
constexpr int own_dtype() {
    return sizeof(C) == 8 ? FLOAT64 : FLOAT32;
}

// A tile in the compute type: the memory itself where it has that type, else a copy.
template <class C>
C* open_tile(Stretch stretch, C* buffer, int count) {
    if (stretch.dtype == own_dtype<C>()) return static_cast<C*>(stretch.data);
    switch (stretch.dtype) {
        case FLOAT64: widen_tile<double>(stretch.data, buffer, count); break;
        case FLOAT32: widen_tile<float>(stretch.data, buffer, count); break;
        case BFLOAT16: widen_tile<bfloat16>(stretch.data, buffer, count); break;
        case FLOAT16: widen_tile<float16>(stretch.data, buffer, count); break;
    }
    return buffer;
}

template <class C>
void close_tile(Stretch stretch, const C* tile, int count) {
    if (tile == stretch.data) return;
    switch (stretch.dtype) {
        case FLOAT64: narrow_tile<double>(tile, stretch.data, count); break;
        case FLOAT32: narrow_tile<float>(tile, stretch.data, count); break;
        case BFLOAT16: narrow_tile<bfloat16>(tile, stretch.data, count); break;
        case FLOAT16: narrow_tile<float16>(tile, stretch.data, count); break;
    }
}

// A block's 64 column sums enter their float64 lanes.
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
    for (int c = 0; c < COLUMNS; ++c)
        lanes[c] += sum_is_safe(sums[c]) ? static_cast<double>(sums[c])
                                         : column_sum<rows, double>(x + c);
}

// The largest absolute value, as bits: nan above infinity above all numbers.
inline int32_t largest_bits(const float* __restrict x, int count, int32_t largest) {
    for (int i = 0; i < count; ++i) {
        int32_t bits = static_cast<int32_t>(bits_of(x[i]) & 0x7FFFFFFFu);
        largest = bits > largest ? bits : largest;
    }
    return largest;
}

inline int64_t largest_bits(const double* __restrict x, int count, int64_t largest) {
    for (int i = 0; i < count; ++i) {
        int64_t bits = static_cast<int64_t>(bits_of(x[i]) & 0x7FFFFFFFFFFFFFFFu);
        largest = bits > largest ? bits : largest;
    }
    return largest;
}

inline double from_bits(int32_t bits) { return float_from_bits(static_cast<uint32_t>(bits)); }
inline double from_bits(int64_t bits) { return double_from_bits(static_cast<uint64_t>(bits)); }

// The float64 lanes of a chunk; those of blocks that the chunk does not have stay out.
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

// The rows that so many elements need: 1, 2, 4 or 8.
inline int rows_of(int count) {
    int rows = 1;
    while (rows * COLUMNS < count) rows *= 2;
    return rows;
}

// Whole rows in the compute type, zeros after the end.
template <class C>
const C* open_rows(Stretch stretch, C* buffer, int count, int rows) {
    const C* block = open_tile(stretch, buffer, count);
    if (count == rows * COLUMNS) return block;
    for (int i = 0; i < count; ++i) buffer[i] = block[i];
    for (int i = count; i < rows * COLUMNS; ++i) buffer[i] = 0;
    return buffer;
}

// body(block, rows, index) over the blocks of a stretch.
template <class C, class Body>
void over_blocks(Stretch stretch, int64_t count, Body body) {
    alignas(64) C buffer[BLOCK];
    for (int64_t i = 0, index = 0; i < count; i += BLOCK, ++index) {
        int size = static_cast<int>(count - i < BLOCK ? count - i : BLOCK), rows = rows_of(size);
        body(open_rows(stretch.at(i), buffer, size, rows), rows, index);
    }
}

template <class C>
double sum_of_squares(Stretch stretch, int64_t count) {
    Lanes lanes(count);
    over_blocks<C>(stretch, count, [&](const C* x, int rows, int64_t i) { lanes.add(x, rows, i); });
    return lanes.sum();
}

template <class C, bool value_clip>
Measured measure_as(const MeasureTask& task) {
    alignas(64) C clipped[BLOCK];
    Lanes raw(task.count), after(value_clip ? task.count : 0);
    const C inverse = static_cast<C>(task.inverse), bound = static_cast<C>(task.bound);
    decltype(largest_bits(clipped, 0, 0)) largest = 0;
    over_blocks<C>(task.g, task.count, [&](const C* g, int rows, int64_t index) {
        raw.add(g, rows, index);
        largest = largest_bits(g, rows * COLUMNS, largest);
        if (!value_clip) return;
        for (int j = 0; j < rows * COLUMNS; ++j) clipped[j] = clip_value(g[j] * inverse, bound);
        after.add(clipped, rows, index);
    });
    Measured measured;
    measured.raw = raw.sum();
    measured.largest = from_bits(largest);
    if (value_clip) measured.clipped = after.sum();
    if (task.p.data) measured.param = sum_of_squares<C>(task.p, task.count);
    return measured;
}

// T is the compute type, or how all of them are stored.
template <class C, bool amsgrad, class T>
void update(const T* __restrict g, T* __restrict p, T* __restrict m, T* __restrict v,
            T* __restrict x, int64_t count, const Record<C> r) {
    for (int64_t i = 0; i < count; ++i) {
        C gradient, param, first, second, largest = 0;
        read_as(g[i], gradient);
        read_as(p[i], param);
        read_as(m[i], first);
        read_as(v[i], second);
        if (amsgrad) read_as(x[i], largest);
        adamw<C, amsgrad>(clip_gradient(gradient, r), param, first, second, largest, r);
        write_as(param, p[i]);
        write_as(first, m[i]);
        write_as(second, v[i]);
        if (amsgrad) write_as(largest, x[i]);
    }
}

// Two neighbours as one word: both are widened and narrowed without moving between vector lanes.
struct Pair {
    static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the low half comes first");
    float low, high;

    static Pair read(const bfloat16* x) {
        uint32_t word;
        memcpy(&word, x, sizeof word);
        return {float_from_bits(word << 16), float_from_bits(word & 0xFFFF0000u)};
    }

    void write(bfloat16* x) const {
        uint32_t word = (rounded_above(high) & 0xFFFF0000u) | (rounded_above(low) >> 16);
        memcpy(x, &word, sizeof word);
    }
};

template <class C, bool amsgrad>
void update(const bfloat16* __restrict g, bfloat16* __restrict p, bfloat16* __restrict m,
            bfloat16* __restrict v, bfloat16* __restrict x, int64_t count, const Record<C> r) {
    int64_t even = count - count % 2;
    for (int64_t i = 0; i < even; i += 2) {
        Pair gradient = Pair::read(g + i), param = Pair::read(p + i), first = Pair::read(m + i),
             second = Pair::read(v + i), largest = {0, 0};
        if (amsgrad) largest = Pair::read(x + i);
        adamw<C, amsgrad>(clip_gradient(gradient.low, r), param.low, first.low, second.low,
                          largest.low, r);
        adamw<C, amsgrad>(clip_gradient(gradient.high, r), param.high, first.high, second.high,
                          largest.high, r);
        param.write(p + i);
        first.write(m + i);
        second.write(v + i);
        if (amsgrad) largest.write(x + i);
    }
    update<C, amsgrad, bfloat16>(g + even, p + even, m + even, v + even, x + even, count - even, r);
}

template <class C>
Record<C> rounded(const Record<double>& r) {
    return {static_cast<C>(r.before), static_cast<C>(r.bound), static_cast<C>(r.after),
            static_cast<C>(r.decay), static_cast<C>(r.beta1), static_cast<C>(r.one_minus_beta1),
            static_cast<C>(r.beta2), static_cast<C>(r.one_minus_beta2), static_cast<C>(r.eps),
            static_cast<C>(r.step_size), static_cast<C>(r.inverse_root)};
}

template <class C, class T>
void write_gradient(T* g, int64_t count, bool maximize, const Record<C> r) {
    for (int64_t i = 0; i < count; ++i) {
        C gradient;
        read_as(g[i], gradient);
        C clipped = clip_gradient(gradient, r);
        write_as(maximize ? -clipped : clipped, g[i]);
    }
}

// Everything is stored in one type: no copies.
template <class C, bool amsgrad, class T>
void apply_in_place(const ApplyTask& task) {
    const Record<C> record = rounded<C>(task.record);
    T* g = static_cast<T*>(task.g.data);
    update<C, amsgrad>(g, static_cast<T*>(task.p.data), static_cast<T*>(task.m.data),
                       static_cast<T*>(task.v.data), static_cast<T*>(task.x.data), task.count,
                       record);
    if (task.write_gradient) write_gradient<C>(g, task.count, task.maximize, record);
}

// Any mixture, by tiles in the compute type.
template <class C, bool amsgrad>
void apply_by_tiles(const ApplyTask& task) {
    alignas(64) C buffers[5][TILE];
    const Record<C> record = rounded<C>(task.record);
    for (int64_t i = 0; i < task.count; i += TILE) {
        int size = static_cast<int>(task.count - i < TILE ? task.count - i : TILE);
        C* g = open_tile(task.g.at(i), buffers[0], size);
        C* p = open_tile(task.p.at(i), buffers[1], size);
        C* m = open_tile(task.m.at(i), buffers[2], size);
        C* v = open_tile(task.v.at(i), buffers[3], size);
        C* x = amsgrad ? open_tile(task.x.at(i), buffers[4], size) : nullptr;
        update<C, amsgrad>(g, p, m, v, x, size, record);
        if (task.write_gradient) {
            write_gradient<C>(g, size, task.maximize, record);
            close_tile(task.g.at(i), g, size);
        }
        close_tile(task.p.at(i), p, size);
        close_tile(task.m.at(i), m, size);
        close_tile(task.v.at(i), v, size);
        if (amsgrad) close_tile(task.x.at(i), x, size);
    }
}

template <class C, bool amsgrad>
void apply_as(const ApplyTask& task) {
    int dtype = task.p.dtype;
    bool uniform = task.g.dtype == dtype && task.m.dtype == dtype && task.v.dtype == dtype &&
                   (!amsgrad || task.x.dtype == dtype);
    if (!uniform) return apply_by_tiles<C, amsgrad>(task);
    if constexpr (sizeof(C) == 8) return apply_in_place<C, amsgrad, double>(task);
    else if (dtype == FLOAT32) return apply_in_place<C, amsgrad, float>(task);
    else if (dtype == BFLOAT16) return apply_in_place<C, amsgrad, bfloat16>(task);
    else return apply_in_place<C, amsgrad, float16>(task);
}

template <class C>
Measured measure_in(const MeasureTask& task) {
    return task.value_clip ? measure_as<C, true>(task) : measure_as<C, false>(task);
}

Measured measure(const MeasureTask& task) {
    return task.double_precision ? measure_in<double>(task) : measure_in<float>(task);
}

void apply(const ApplyTask& task) {
    if (task.double_precision)
        return task.amsgrad ? apply_as<double, true>(task) : apply_as<double, false>(task);
    return task.amsgrad ? apply_as<float, true>(task) : apply_as<float, false>(task);
}

}  // namespace LRF_ISA
}  // namespace lrfused

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
inline void add_block(const double* __restrict x, double* __restrict lanes) {
    for (int c = 0; c < COLUMNS; ++c)
        lanes[c] += column_sum(x[c], x[c + 64], x[c + 128], x[c + 192], x[c + 256], x[c + 320],
                               x[c + 384], x[c + 448]);
}

inline void add_block(const float* __restrict x, double* __restrict lanes) {
    float sums[COLUMNS];
    int unsafe = 0;
    for (int c = 0; c < COLUMNS; ++c) {
        sums[c] = column_sum(x[c], x[c + 64], x[c + 128], x[c + 192], x[c + 256], x[c + 320],
                             x[c + 384], x[c + 448]);
        unsafe |= !sum_is_safe(sums[c]);
    }
    if (!unsafe) {
        for (int c = 0; c < COLUMNS; ++c) lanes[c] += static_cast<double>(sums[c]);
        return;
    }
    for (int c = 0; c < COLUMNS; ++c) {
        double row[ROWS];
        for (int r = 0; r < ROWS; ++r) row[r] = x[c + 64 * r];
        double exact = column_sum(row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7]);
        lanes[c] += sum_is_safe(sums[c]) ? static_cast<double>(sums[c]) : exact;
    }
}

// The largest absolute value, as bits: nan above infinity above all numbers.
inline int32_t largest_bits(const float* __restrict x, int32_t largest) {
    for (int i = 0; i < BLOCK; ++i) {
        int32_t bits = static_cast<int32_t>(bits_of(x[i]) & 0x7FFFFFFFu);
        largest = bits > largest ? bits : largest;
    }
    return largest;
}

inline int64_t largest_bits(const double* __restrict x, int64_t largest) {
    for (int i = 0; i < BLOCK; ++i) {
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
    void add(const C* block, int64_t index) {
        add_block(block, lanes + (index % LANE_BLOCKS) * COLUMNS);
    }

    double sum() { return pairwise_sum(lanes, used * COLUMNS); }
};

// A block of 512 in the compute type, zeros after its end.
template <class C>
const C* open_block(Stretch stretch, C* buffer, int count) {
    const C* block = open_tile(stretch, buffer, count);
    if (count == BLOCK) return block;
    for (int i = 0; i < count; ++i) buffer[i] = block[i];
    for (int i = count; i < BLOCK; ++i) buffer[i] = 0;
    return buffer;
}

template <class C>
double sum_of_squares(Stretch stretch, int64_t count) {
    alignas(64) C buffer[BLOCK];
    Lanes lanes(count);
    for (int64_t i = 0, block = 0; i < count; i += BLOCK, ++block) {
        int size = static_cast<int>(count - i < BLOCK ? count - i : BLOCK);
        lanes.add(open_block(stretch.at(i), buffer, size), block);
    }
    return lanes.sum();
}

template <class C>
Measured measure_as(const MeasureTask& task) {
    alignas(64) C buffer[BLOCK];
    alignas(64) C clipped[BLOCK];
    Lanes raw(task.count), after(task.value_clip ? task.count : 0);
    const C inverse = static_cast<C>(task.inverse), bound = static_cast<C>(task.bound);
    decltype(largest_bits(buffer, 0)) largest = 0;
    for (int64_t i = 0, block = 0; i < task.count; i += BLOCK, ++block) {
        int size = static_cast<int>(task.count - i < BLOCK ? task.count - i : BLOCK);
        const C* g = open_block(task.g.at(i), buffer, size);
        raw.add(g, block);
        largest = largest_bits(g, largest);
        if (!task.value_clip) continue;
        for (int j = 0; j < BLOCK; ++j) clipped[j] = clip_value(g[j] * inverse, bound);
        after.add(clipped, block);
    }
    Measured measured;
    measured.raw = raw.sum();
    measured.largest = from_bits(largest);
    if (task.value_clip) measured.clipped = after.sum();
    if (task.p.data) measured.param = sum_of_squares<C>(task.p, task.count);
    return measured;
}

template <class C, bool amsgrad>
void update_tile(const C* __restrict g, C* __restrict p, C* __restrict m, C* __restrict v,
                 C* __restrict x, int count, const Record<C> r) {
    C unused = 0;
    for (int i = 0; i < count; ++i) {
        adamw<C, amsgrad>(clip_gradient(g[i], r), p[i], m[i], v[i], amsgrad ? x[i] : unused, r);
    }
}

template <class C>
Record<C> rounded(const Record<double>& r) {
    return {static_cast<C>(r.before), static_cast<C>(r.bound), static_cast<C>(r.after),
            static_cast<C>(r.decay), static_cast<C>(r.beta1), static_cast<C>(r.one_minus_beta1),
            static_cast<C>(r.beta2), static_cast<C>(r.one_minus_beta2), static_cast<C>(r.eps),
            static_cast<C>(r.step_size), static_cast<C>(r.root)};
}

template <class C>
void write_gradient(Stretch g, const C* tile, int count, bool maximize, const Record<C>& r) {
    alignas(64) C result[TILE];
    for (int i = 0; i < count; ++i) {
        C clipped = clip_gradient(tile[i], r);
        result[i] = maximize ? -clipped : clipped;
    }
    close_tile(g, result, count);
}

template <class C, bool amsgrad>
void apply_as(const ApplyTask& task) {
    alignas(64) C buffers[5][TILE];
    const Record<C> record = rounded<C>(task.record);
    for (int64_t i = 0; i < task.count; i += TILE) {
        int size = static_cast<int>(task.count - i < TILE ? task.count - i : TILE);
        const C* g = open_tile(task.g.at(i), buffers[0], size);
        C* p = open_tile(task.p.at(i), buffers[1], size);
        C* m = open_tile(task.m.at(i), buffers[2], size);
        C* v = open_tile(task.v.at(i), buffers[3], size);
        C* x = amsgrad ? open_tile(task.x.at(i), buffers[4], size) : nullptr;
        update_tile<C, amsgrad>(g, p, m, v, x, size, record);
        if (task.write_gradient) write_gradient(task.g.at(i), g, size, task.maximize, record);
        close_tile(task.p.at(i), p, size);
        close_tile(task.m.at(i), m, size);
        close_tile(task.v.at(i), v, size);
        if (amsgrad) close_tile(task.x.at(i), x, size);
    }
}

Measured measure(const MeasureTask& task) {
    return task.double_precision ? measure_as<double>(task) : measure_as<float>(task);
}

void apply(const ApplyTask& task) {
    if (task.double_precision)
        return task.amsgrad ? apply_as<double, true>(task) : apply_as<double, false>(task);
    return task.amsgrad ? apply_as<float, true>(task) : apply_as<float, false>(task);
}

}  // namespace LRF_ISA
}  // namespace lrfused

// Apply: AdamW of a chunk. A part of kernels.inl.

namespace lrfused {
namespace LRF_ISA {

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

void apply(const ApplyTask& task) {
    if (task.double_precision)
        return task.amsgrad ? apply_as<double, true>(task) : apply_as<double, false>(task);
    return task.amsgrad ? apply_as<float, true>(task) : apply_as<float, false>(task);
}

}  // namespace LRF_ISA
}  // namespace lrfused

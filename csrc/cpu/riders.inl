// Riders: what is done to elements besides a rule's update. Included by kernels.inl.

namespace lrfused {
namespace LRF_ISA {

// Of as many elements as a word of the mask has, or fewer; T has the size of an element.
template <class T>
void clear_word(T* __restrict x, uint32_t kept, int size) {
    for (int j = 0; j < size; ++j)
        x[j] = static_cast<T>(x[j] & (T(0) - static_cast<T>(kept >> j & 1)));
}

// Masked elements become 0. (With x[i + j] as the index the loop stays scalar: under -fwrapv, which is
// one of Python's own flags, the sum may overflow.)
template <class T>
LRF_NOINLINE void clear_masked(T* __restrict x, const Mask mask, int count) {
    int i = 0;
    for (; i + 32 <= count; i += 32) clear_word(x + i, mask.word(i), 32);
    if (i < count) clear_word(x + i, mask.word(i), count - i);
}

inline void clear_masked(const TypedPointer& pointer, const Mask& mask, int count) {
    const int shift = size_shift(pointer.dtype);
    if (shift == 3) return clear_masked(static_cast<uint64_t*>(pointer.data), mask, count);
    if (shift == 2) return clear_masked(static_cast<uint32_t*>(pointer.data), mask, count);
    clear_masked(static_cast<uint16_t*>(pointer.data), mask, count);
}

// How many of so many elements a mask keeps.
inline int64_t kept_of(const Mask& mask, int64_t count) {
    if (!mask.words) return count;
    int64_t kept = 0;
    for (int64_t i = 0; i < count; i += 32) {
        const uint32_t here = count - i < 32 ? (1u << (count - i)) - 1 : ~0u;
        kept += __builtin_popcount(mask.word(i) & here);
    }
    return kept;
}

inline void clear_all_masked(const ApplyTask& task, int count) {
    clear_masked(task.p, task.mask, count);
    for (int k = 0; k < task.operands_count; ++k) clear_masked(task.operands[k], task.mask, count);
    if (task.write_gradient) clear_masked(task.g, task.mask, count);
}

template <class C>
void average_as(const ApplyTask& task, int count) {
    alignas(64) C buffers[2][TILE];
    const C weight = static_cast<C>(task.average_weight);
    for (int start = 0; start < count; start += TILE) {
        const int size = count - start < TILE ? count - start : TILE;
        const TypedPointer place = task.average.at(start);
        C* __restrict a = open_tile(place, buffers[0], size);
        const C* __restrict p = open_tile(task.p.at(start), buffers[1], size);
        for (int i = 0; i < size; ++i) a[i] = update_average(a[i], p[i], weight);
        if (task.mask.words) clear_masked({a, own_dtype<C>()}, task.mask.at(start), size);
        close_tile(place, a, size);
    }
}

// After the update, if there was one.
inline void ride(const ApplyTask& task) {
    const int count = static_cast<int>(task.count);
    if (task.moves && task.mask.words) clear_all_masked(task, count);
    if (task.average_weight != NOT_NOW) {
        if (task.double_precision) average_as<double>(task, count);
        else average_as<float>(task, count);
    }
    if (task.zero_gradient)
        memset(task.g.data, 0, static_cast<size_t>(task.count) << size_shift(task.g.dtype));
}

}  // namespace LRF_ISA
}  // namespace lrfused

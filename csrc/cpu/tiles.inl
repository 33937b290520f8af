// Tiles: elements of any type in the compute type. A part of kernels.inl.

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

}  // namespace LRF_ISA
}  // namespace lrfused

// Tiles: elements of any storage type, in the compute type. Included by kernels.inl.

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

// A tile in the compute type: the memory itself if it has that type, else a converted copy. (Not
// inlined: in every rule's loops, these two would be most of the module.)
template <class C>
LRF_NOINLINE C* open_tile(TypedPointer pointer, C* buffer, int count) {
    if (pointer.dtype == own_dtype<C>()) return static_cast<C*>(pointer.data);
    with_type(pointer.dtype, [&](auto number) {
        widen_tile<decltype(number)>(pointer.data, buffer, count);
    });
    return buffer;
}

template <class C>
LRF_NOINLINE void close_tile(TypedPointer pointer, const C* tile, int count) {
    if (tile == pointer.data) return;
    with_type(pointer.dtype, [&](auto number) {
        narrow_tile<decltype(number)>(tile, pointer.data, count);
    });
}

}  // namespace LRF_ISA
}  // namespace lrfused

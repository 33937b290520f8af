// Riders: what a block does to its tile besides an update, after it. The threads read other
// elements than in the update, so there is a barrier between.
#pragma once

#include "cuda/apply.cuh"

namespace lrfused {

// What is done to a tensor in this step.
struct Parts {
    bool moves, zeroes;
    double average_weight;

    __device__ bool rides(const Tensor& tensor) const {
        return (moves && tensor.mask) || zeroes || average_weight != NOT_NOW;
    }
};

__device__ inline Parts parts_of(const Arguments& a, const Tensor& tensor, TypedPointer gradient) {
    const int decided = a.workspace.decision->decided;
    const GroupPlan& group = a.workspace.groups[tensor.group];
    const bool proceeds = decided == PROCEEDS, has_gradient = gradient.dtype >= 0;
    return {proceeds && has_gradient && group.active,
            decided != REFUSED && has_gradient && a.options.zero_grads,
            proceeds && tensor.average.data ? group.average_weight : NOT_NOW};
}

// Masked elements of everything that moved become 0.
template <class Launched>
__device__ inline void clear_masked(const Launched& a, const Piece& piece, const Tensor& tensor,
                                    TypedPointer g) {
    const int operands = a.table.groups[tensor.group].options.operands;
    const Mask mask = {tensor.mask, piece.offset};
#pragma unroll 1
    for (int i = threadIdx.x; i < piece.count; i += APPLY_THREADS) {
        if (mask.keeps(i)) continue;
        write(tensor.p.at(piece.offset), i, 0.0f);
#pragma unroll
        for (int k = 0; k < MAX_OPERANDS; ++k)
            if (k < operands) write(tensor.operands[k].at(piece.offset), i, 0.0f);
        if (a.options.write_grads) write(g.at(piece.offset), i, 0.0f);
    }
}

template <class C>
__device__ inline C averaged(C a, C p, C weight, const Mask& mask, int i) {
    return mask.words && !mask.keeps(i) ? C(0) : update_average(a, p, weight);
}

template <class P, class A>
__device__ inline int average_aligned(TypedPointer p, TypedPointer a, const Mask& mask, int count,
                                      double weight) {
    using C = std::conditional_t<sizeof(P) == 8, double, float>;
    constexpr int width = static_cast<int>(16 / sizeof(A));
    const int whole = count / width * width;
#pragma unroll 1
    for (int i = threadIdx.x * width; i < whole; i += APPLY_THREADS * width) {
        auto averages = read_aligned<width>(static_cast<A*>(a.data) + i);
        const auto params = read_aligned<width>(static_cast<const P*>(p.data) + i);
#pragma unroll
        for (int j = 0; j < width; ++j) {
            C average, param;
            read_as(averages.x[j], average);
            read_as(params.x[j], param);
            write_as(averaged(average, param, static_cast<C>(weight), mask, i + j), averages.x[j]);
        }
        write_aligned(averages, static_cast<A*>(a.data) + i);
    }
    return whole;
}

template <class C>
__device__ inline void average_each(TypedPointer p, TypedPointer a, const Mask& mask, int first,
                                    int count, double weight) {
#pragma unroll 1
    for (int i = first + threadIdx.x; i < count; i += APPLY_THREADS)
        write(a, i, averaged(read<C>(a, i), read<C>(p, i), static_cast<C>(weight), mask, i));
}

__device__ inline void average(TypedPointer p, TypedPointer a, const Mask& mask, int count,
                               double weight) {
    int done = 0;
    const uintptr_t addresses =
        reinterpret_cast<uintptr_t>(p.data) | reinterpret_cast<uintptr_t>(a.data);
    if (addresses % 16 == 0) {
        if (p.dtype == FLOAT32 && a.dtype == FLOAT32)
            done = average_aligned<float, float>(p, a, mask, count, weight);
        else if (p.dtype == BFLOAT16 && a.dtype == FLOAT32)
            done = average_aligned<bfloat16, float>(p, a, mask, count, weight);
        else if (p.dtype == FLOAT16 && a.dtype == FLOAT32)
            done = average_aligned<float16, float>(p, a, mask, count, weight);
    }
    if (p.dtype == FLOAT64) average_each<double>(p, a, mask, done, count, weight);
    else average_each<float>(p, a, mask, done, count, weight);
}

__device__ inline void zero(TypedPointer pointer, int count) {
    int done = 0;
    if (reinterpret_cast<uintptr_t>(pointer.data) % 16 == 0) {
        const int shift = size_shift(pointer.dtype), words = count << shift >> 4;
        for (int i = threadIdx.x; i < words; i += APPLY_THREADS)
            store(static_cast<uint4*>(pointer.data) + i, uint4{});
        done = words << 4 >> shift;
    }
    for (int i = done + threadIdx.x; i < count; i += APPLY_THREADS) write(pointer, i, 0.0f);
}

// By the whole block; looked up anew, so that the update has the registers.
template <class Launched>
__device__ inline void ride(const Launched& a, const Piece& piece) {
    const Tensor& tensor = a.table.tensors[piece.tensor];
    const TypedPointer g = a.gradient(piece.tensor);
    const Parts parts = parts_of(a, tensor, g);
    if (!parts.rides(tensor)) return;
    const TypedPointer p = tensor.p.at(piece.offset);
    const Mask mask = {tensor.mask, piece.offset};
    __syncthreads();
    if (parts.moves && mask.words) {
        clear_masked(a, piece, tensor, g);
        __syncthreads();
    }
    if (parts.average_weight != NOT_NOW)
        average(p, tensor.average.at(piece.offset), mask, piece.count, parts.average_weight);
    if (parts.zeroes) zero(g.at(piece.offset), piece.count);
}

}  // namespace lrfused

// The first launch of a step: measure, and plan in the block that finishes last. Where nothing is
// to be measured one block plans. Of parameters on several devices either comes by itself, and the
// blocks of plan first combine what was measured.
#include "cuda/launch.h"
#include "cuda/plan.cuh"
#include "cuda/prepare.cuh"

namespace lrfused {

__device__ inline Shared& shared_memory() {
    __shared__ Shared shared;
    return shared;
}

// Of a multiprocessor: with eight the compiler spills two registers on these chips.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000 && __CUDA_ARCH__ < 1200
constexpr int MEASURE_BLOCKS = 7;
#else
constexpr int MEASURE_BLOCKS = 8;
#endif

template <int capacity>
__global__ void __launch_bounds__(MEASURE_THREADS, MEASURE_BLOCKS)
    measure_and_plan(const __grid_constant__ Launch<capacity> a) {
    Shared& shared = shared_memory();
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    // apply may start where multiprocessors become free; it waits before it reads what is planned.
    asm volatile("griddepcontrol.launch_dependents;");
#endif
    if (a.plans && blockIdx.x == 0) prepare(a, shared);
    if (a.measures) measure_part(a, a.table.parts[same_block()], shared.registers, shared.found);
    if (a.plans && comes_to_plan(a, shared)) plan(a, shared);
}

void prefer_measure_carveout(int percent) {
    prefer_carveout(measure_and_plan<FEW>, percent);
    prefer_carveout(measure_and_plan<MANY>, percent);
}

int measure_carveout(int device) {
    cudaFuncAttributes attributes;
    check(cudaFuncGetAttributes(&attributes, measure_and_plan<MANY>), "cudaFuncGetAttributes");
    int most = 0, reserved = 0;
    const char* name = "cudaDeviceGetAttribute";
    check(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerMultiprocessor, device), name);
    check(cudaDeviceGetAttribute(&reserved, cudaDevAttrReservedSharedMemoryPerBlock, device), name);
    const int wanted = MEASURE_BLOCKS * (static_cast<int>(attributes.sharedSizeBytes) + reserved);
    return std::min(100, (100 * wanted + most - 1) / most);
}

void launch_measure(const Arguments& a, Gradients gradients, cudaStream_t stream) {
    const char* name = "cudaLaunchKernelEx(measure_and_plan)";
    int64_t blocks = 1;
    if (a.measures) blocks = a.table.parts_count;
    else if (a.combines) blocks = a.table.spans_count + a.table.long_units_count;
    if (gradients.count <= FEW)
        launch(measure_and_plan<FEW>, name, blocks, MEASURE_THREADS, a, gradients, stream);
    else
        launch(measure_and_plan<MANY>, name, blocks, MEASURE_THREADS, a, gradients, stream);
}

}  // namespace lrfused

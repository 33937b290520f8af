// The CUDA built-ins that csrc/cuda uses, for g++ and a CPU: the same sources, unmodified, run.
//
// How they run: fibers.h. Memory is sequentially consistent: a missing barrier shows as a wrong
// result, a missing fence does not.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include <dlfcn.h>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#define LRF_CUDA_EMULATED
#define LRF_CUDA_CHIPS "9.0+PTX"
#define __global__
#define __device__
#define __host__
// In a section of their own, which every block finds full of what nobody wrote; (g++ would leave
// those of a template out of it.)
#define __shared__ static __attribute__((section("cuda_shared")))
#define __grid_constant__
#define __launch_bounds__(...)

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
    explicit dim3(unsigned x_ = 1) : x(x_) {}
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
inline dim3 threadIdx, blockIdx, blockDim, gridDim;

#include "fibers.h"

// What a thread of a kernel can do

#define __syncthreads() emulated::wait_for_block(__FILE__, __LINE__)
#define __syncthreads_or(mine) emulated::vote(__FILE__, __LINE__, mine)

inline void __threadfence() {}

template <class T>
T __shfl_xor_sync(unsigned mask, T x, int change) {
    static_assert(sizeof(T) <= 8, "one word");
    if (mask != 0xFFFFFFFFu) emulated::stop("a shuffle of less than a whole warp");
    uint64_t* exchanged = emulated::block->exchanged[emulated::fiber().shuffles++ % 2];
    std::memcpy(&exchanged[threadIdx.x], &x, sizeof x);
    emulated::pause(emulated::AT_WARP_BARRIER);
    std::memcpy(&x, &exchanged[threadIdx.x ^ unsigned(change)], sizeof x);
    return x;
}

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline void __syncwarp() { emulated::pause(emulated::AT_WARP_BARRIER); }

inline int atomicMin(int* place, int value) {
    int before = *place;
    *place = std::min(before, value);
    return before;
}

inline unsigned atomicInc(unsigned* place, unsigned limit) {
    unsigned before = *place;
    *place = before >= limit ? 0 : before + 1;
    return before;
}

inline int atomicAdd(int* place, int value) {
    int before = *place;
    *place = before + value;
    return before;
}

inline int atomicOr(int* place, int bits) {
    int before = *place;
    *place |= bits;
    return before;
}

template <class T>
T* checked(T* place) {
    if (reinterpret_cast<uintptr_t>(place) % sizeof(T)) emulated::stop("a misaligned access");
    return place;
}

template <class T> T __ldcg(const T* place) { return *checked(place); }
template <class T> void __stcg(T* place, T value) { *checked(place) = value; }
template <class T> void __stwb(T* place, T value) { *checked(place) = value; }

// What the host can do

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorLaunchFailure = 719
};
using cudaStream_t = struct CUstream_st*;
enum cudaLaunchAttributeID { cudaLaunchAttributeProgrammaticStreamSerialization = 6 };
struct cudaLaunchAttribute {
    cudaLaunchAttributeID id;
    struct {
        int programmaticStreamSerializationAllowed;
    } val;
};
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    cudaStream_t stream;
    cudaLaunchAttribute* attrs;
    unsigned numAttrs;
};
struct cudaFuncAttributes {
    int ptxVersion;
    size_t sharedSizeBytes;
};
enum cudaFuncAttribute { cudaFuncAttributePreferredSharedMemoryCarveout = 9 };
enum cudaSharedCarveout { cudaSharedmemCarveoutDefault = -1 };
enum cudaDeviceAttr {
    cudaDevAttrMaxSharedMemoryPerMultiprocessor = 81,
    cudaDevAttrReservedSharedMemoryPerBlock = 111
};

namespace emulated {
// Runs a kernel of that name in place of what g++ made of it: its PTX, in tests/ptx.
using Machine = bool (*)(const char* name, const void* parameters, uint64_t size, unsigned blocks,
                         unsigned threads, bool dependent);
inline Machine machine;

template <class Parameters>
bool run_on_machine(const void* kernel, const cudaLaunchConfig_t& config, const Parameters& given) {
    Dl_info found = {};
    dladdr(kernel, &found);
    return machine(found.dli_sname ? found.dli_sname : "", &given, sizeof given, config.gridDim.x,
                   config.blockDim.x, config.numAttrs > 0);
}

inline cudaError_t outcome(const char* call) {
    return failing_call == call ? cudaErrorLaunchFailure : cudaSuccess;
}
}  // namespace emulated

inline const char* cudaGetErrorName(cudaError_t) { return "cudaErrorLaunchFailure"; }
inline const char* cudaGetErrorString(cudaError_t) { return "unspecified launch failure"; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return emulated::outcome("cudaGetDevice");
}
inline cudaError_t cudaSetDevice(int) { return emulated::outcome("cudaSetDevice"); }
inline cudaError_t cudaDriverGetVersion(int* version) {
    *version = 13000;
    return emulated::outcome("cudaDriverGetVersion");
}
template <class Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, Kernel*) {
    attributes->ptxVersion = 90;
    attributes->sharedSizeBytes = 8 * 1024;
    return emulated::outcome("cudaFuncGetAttributes");
}

inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    *value = (attribute == cudaDevAttrReservedSharedMemoryPerBlock ? 1 : 228) * 1024;
    return emulated::outcome("cudaDeviceGetAttribute");
}
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel*, cudaFuncAttribute, int value) {
    emulated::settings.push_back("carveout " + std::to_string(value));
    return emulated::outcome("cudaFuncSetAttribute");
}

template <class Parameters>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters),
                               Parameters& parameters) {
    if (cudaError_t error = emulated::outcome("cudaLaunchKernelEx")) return error;
    if (!config->gridDim.x || config->blockDim.x > emulated::LARGEST_BLOCK)
        return cudaErrorInvalidConfiguration;
    emulated::settings.push_back(config->numAttrs ? "dependent" : "ordered");
    emulated::launches.push_back(std::to_string(config->gridDim.x) + " x " +
                                 std::to_string(config->blockDim.x));
    if (emulated::machine) {
        const void* address = reinterpret_cast<const void*>(kernel);
        return emulated::run_on_machine(address, *config, parameters) ? cudaSuccess
                                                                      : cudaErrorLaunchFailure;
    }
#if defined(__SSE__)
    unsigned mode = _mm_getcsr();
    _mm_setcsr(0x1F80);  // subnormal numbers are kept, whatever the caller's mode
#endif
    gridDim = config->gridDim;
    blockDim = config->blockDim;
    emulated::body = [&] { kernel(parameters); };
    emulated::ended = [] { emulated::pause(emulated::DONE); };
    emulated::run_grid(gridDim.x, blockDim.x);
#if defined(__SSE__)
    _mm_setcsr(mode);
#endif
    return cudaSuccess;
}

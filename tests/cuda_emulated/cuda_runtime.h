// The CUDA built-ins that csrc/cuda uses, for g++ and a CPU: the same sources, unmodified, run.
//
// The threads of a block are fibers, which run until they wait for each other; a few blocks are
// resident together, and while a warp of one stands still another block may come and end. The order
// in which they come is drawn at random. Memory is sequentially consistent: a missing barrier shows
// as a wrong result, a missing fence does not.
#pragma once

#include <algorithm>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <ucontext.h>
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

// Fibers

extern "C" char __start_cuda_shared[], __stop_cuda_shared[];

namespace emulated {

enum State { READY, AT_WARP_BARRIER, AT_BLOCK_BARRIER, DONE };
constexpr unsigned WARP = 32, LARGEST_BLOCK = 1024, RESIDENT = 3;
constexpr size_t STACK = 64 * 1024;

struct Fiber {
    State state = DONE;
    bool started = false;
    unsigned shuffles = 0, votes = 0;
    int line = 0;  // of the barrier that it waits at
    jmp_buf here;
    ucontext_t context;
    std::unique_ptr<char[]> stack;
};

// A resident block; of several, one has its shared memory in the section.
struct Block {
    unsigned index = 0, threads = 0;
    std::vector<Fiber> fibers = std::vector<Fiber>(LARGEST_BLOCK);
    std::vector<unsigned> warps;  // those whose turn is still to come, before the next barrier
    std::vector<char> shared;
    uint64_t exchanged[2][LARGEST_BLOCK];  // what the lanes of warps hand to each other
    bool votes[2][LARGEST_BLOCK];
};

inline Block resident[RESIDENT], *block = resident;
inline std::function<void()> body;
inline jmp_buf scheduler;
inline std::mt19937_64 random;
inline std::vector<std::string> launches, settings;  // for tests (controls.cpp)
inline std::map<std::string, int> barriers;          // how often each was reached by a thread
inline std::string dropped_barrier, failing_call;

[[noreturn]] inline void stop(const char* reason) {
    std::fprintf(stderr, "cuda_emulated: %s\n", reason);
    std::abort();
}

inline Fiber& fiber() { return block->fibers[threadIdx.x]; }

inline void pause(State state) {
    fiber().state = state;
    if (!_setjmp(fiber().here)) _longjmp(scheduler, 1);
}

inline void live() {
    for (;;) {
        body();
        pause(DONE);
    }
}

[[gnu::noinline]] inline void resume(Fiber& fiber) {
    if (_setjmp(scheduler)) return;
    if (fiber.started) _longjmp(fiber.here, 1);
    fiber.started = true;
    fiber.stack.reset(new char[STACK]);
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = STACK;
    makecontext(&fiber.context, live, 0);
    setcontext(&fiber.context);
}

inline std::vector<unsigned> any_order(unsigned count) {
    std::vector<unsigned> order(count);
    for (unsigned i = 0; i < count; ++i) order[i] = i;
    for (unsigned i = count; i > 1; --i) std::swap(order[i - 1], order[random() % i]);
    return order;
}

// Lets those go on who waited for others that have all come (or ended).
inline bool release(unsigned first, unsigned end, State state) {
    std::vector<Fiber>& fibers = block->fibers;
    bool some = false;
    for (unsigned i = first; i < end; ++i) {
        if (fibers[i].state != state && fibers[i].state != DONE) return false;
        some |= fibers[i].state == state;
    }
    for (unsigned i = first; i < end && some; ++i)
        if (fibers[i].state == state) fibers[i].state = READY;
    return some;
}

// The threads of a warp, in any order, until each waits for the block or has ended.
inline void run_warp(unsigned first, unsigned end) {
    std::vector<unsigned> order = any_order(end - first);
    do {
        for (unsigned i : order) {
            threadIdx.x = first + i;
            if (fiber().state == READY) resume(fiber());
        }
    } while (release(first, end, AT_WARP_BARRIER));
}

inline void switch_to(Block& other) {
    const size_t size = static_cast<size_t>(__stop_cuda_shared - __start_cuda_shared);
    if (&other != block) {
        block->shared.assign(__start_cuda_shared, __stop_cuda_shared);
        block = &other;
        if (block->shared.size() == size)
            std::memcpy(__start_cuda_shared, block->shared.data(), size);
    }
    blockIdx.x = block->index;
}

inline std::vector<unsigned> all_warps() { return any_order((block->threads + WARP - 1) / WARP); }

inline void start(Block& other, unsigned index, unsigned threads) {
    other.index = index;
    other.threads = threads;
    switch_to(other);
    for (unsigned i = 0; i < threads; ++i) block->fibers[i].state = READY;
    std::memset(__start_cuda_shared, static_cast<int>(random() % 255 + 1),
                static_cast<size_t>(__stop_cuda_shared - __start_cuda_shared));
    block->warps = all_warps();
}

inline void check_barrier() {
    int line = 0;
    for (unsigned i = 0; i < block->threads; ++i) {
        const Fiber& fiber = block->fibers[i];
        if (fiber.state != AT_BLOCK_BARRIER) continue;
        if (line && line != fiber.line) stop("threads of a block wait at different barriers");
        line = fiber.line;
    }
}

// One warp goes as far as it can while the others stand still: so a missing barrier shows best.
// Whether the block goes on after that.
inline bool step() {
    const unsigned warp = block->warps.back(), threads = block->threads;
    block->warps.pop_back();
    run_warp(warp * WARP, std::min((warp + 1) * WARP, threads));
    if (!block->warps.empty()) return true;
    check_barrier();
    if (release(0, threads, AT_BLOCK_BARRIER)) {
        block->warps = all_warps();
        return true;
    }
    for (unsigned i = 0; i < threads; ++i)
        if (block->fibers[i].state != DONE) stop("a barrier that not all threads reach");
    return false;
}

// One place goes on most of the time, with one block after the other; now and then a block at
// another one does, for a short time.
inline void run_grid(unsigned blocks, unsigned threads) {
    const std::vector<unsigned> order = any_order(blocks);
    const unsigned places = 1 + static_cast<unsigned>(random() % RESIDENT);
    unsigned next = 0;
    std::vector<Block*> running;
    for (; next < std::min(places, blocks); ++next) {
        start(resident[next], order[next], threads);
        running.push_back(&resident[next]);
    }
    while (!running.empty()) {
        const size_t chosen = random() % 3 ? 0 : random() % running.size();
        switch_to(*running[chosen]);
        bool goes_on = true;
        for (auto steps = 1 + random() % (chosen ? 4 : 64); goes_on && steps; --steps)
            goes_on = step();
        if (goes_on) continue;
        if (next < blocks) start(*running[chosen], order[next++], threads);
        else running.erase(running.begin() + static_cast<long>(chosen));
    }
}

// Whether it is a barrier, and was not taken out.
inline bool wait_for_block(const char* file, int line) {
    const char* name = std::strrchr(file, '/');
    std::string place = std::string(name ? name + 1 : file) + ":" + std::to_string(line);
    ++barriers[place];
    if (place == dropped_barrier) return false;
    fiber().line = line;
    pause(AT_BLOCK_BARRIER);
    return true;
}

// A barrier at which every thread learns whether one said yes.
inline bool vote(const char* file, int line, bool mine) {
    bool* votes = block->votes[fiber().votes++ % 2];
    votes[threadIdx.x] = mine;
    if (!wait_for_block(file, line)) return mine;
    return std::any_of(votes, votes + block->threads, [](bool yes) { return yes; });
}

}  // namespace emulated

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

inline unsigned atomicInc(unsigned* place, unsigned limit) {
    unsigned before = *place;
    *place = before >= limit ? 0 : before + 1;
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
template <class T> T __ldcs(const T* place) { return *checked(place); }
template <class T> void __stcg(T* place, T value) { *checked(place) = value; }
template <class T> void __stcs(T* place, T value) { *checked(place) = value; }
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

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
    if (cudaError_t error = emulated::outcome("cudaLaunchKernelEx")) return error;
    if (!config->gridDim.x || config->blockDim.x > emulated::LARGEST_BLOCK)
        return cudaErrorInvalidConfiguration;
#if defined(__SSE__)
    unsigned mode = _mm_getcsr();
    _mm_setcsr(0x1F80);  // subnormal numbers are kept, whatever the caller's mode
#endif
    emulated::settings.push_back(config->numAttrs ? "dependent" : "ordered");
    gridDim = config->gridDim;
    blockDim = config->blockDim;
    emulated::body = [&] { kernel(arguments...); };
    emulated::launches.push_back(std::to_string(gridDim.x) + " x " + std::to_string(blockDim.x));
    emulated::run_grid(gridDim.x, blockDim.x);
#if defined(__SSE__)
    _mm_setcsr(mode);
#endif
    return cudaSuccess;
}

// Launching on the caller's stream; an error becomes an exception that names the call.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <stdexcept>
#include <string>

#include "cuda/table.h"

namespace lrfused {

inline void check(cudaError_t error, const char* call) {
    if (error == cudaSuccess) return;
    cudaGetLastError();  // the next call is not to be blamed for it
    throw std::runtime_error(std::string(call) + ": " + cudaGetErrorName(error) + ": " +
                             cudaGetErrorString(error));
}

struct Gradients {
    const uint64_t* words;  // on the host; nothing where the call has a table on the device
    int64_t count;
};

void launch_measure(const Arguments& arguments, Gradients gradients, cudaStream_t stream);

// How much of a multiprocessor's first cache is to be shared memory, in percent of the most there
// can be: what measure needs, for as many blocks as there is room for.
int measure_carveout(int device);
void prefer_measure_carveout(int percent);

// The kernels of a rule's apply. apply.cu is compiled once for each rule, and that is all of them.
template <class Rule>
struct Apply {
    // dependent: on chips where apply may start before measure has ended.
    static void launch(const Arguments& arguments, Gradients gradients, cudaStream_t stream,
                       bool dependent);
    static bool is_compiled_for_dependent_launch();
    static void prefer_carveout(int percent);
};

template <class Kernel>
void prefer_carveout(Kernel* kernel, int percent) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, percent),
          "cudaFuncSetAttribute(PreferredSharedMemoryCarveout)");
}

template <int capacity>
void launch(void (*kernel)(Launch<capacity>), const char* name, int64_t blocks, int threads,
            const Arguments& arguments, Gradients gradients, cudaStream_t stream,
            bool dependent = false) {
    Launch<capacity> parameters;
    static_cast<Arguments&>(parameters) = arguments;
    std::copy(gradients.words, gradients.words + gradients.count, parameters.gradients);
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(static_cast<unsigned>(blocks));
    config.blockDim = dim3(static_cast<unsigned>(threads));
    config.stream = stream;
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    config.attrs = &attribute;
    config.numAttrs = dependent ? 1 : 0;
    check(cudaLaunchKernelEx(&config, kernel, parameters), name);
}

}  // namespace lrfused

#include "cpu/instruction_set.h"

#include <stdexcept>

namespace lrfused {

static std::vector<const Kernels*> available() {
    std::vector<const Kernels*> found = {&kernels_baseline};
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) found.push_back(&kernels_avx2);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        found.push_back(&kernels_avx512);
#endif
    return found;
}

std::vector<std::string> instruction_sets() {
    std::vector<std::string> names;
    for (const Kernels* kernels : available()) names.push_back(kernels->name);
    return names;
}

const Kernels& kernels_for(const std::string& name) {
    static const std::vector<const Kernels*> found = available();
    if (name == "auto") return *found.back();
    for (const Kernels* kernels : found)
        if (name == kernels->name) return *kernels;
    throw std::invalid_argument("instruction_set: this machine has no '" + name + "'");
}

}  // namespace lrfused

// The kernels for any processor.
#include "cpu/kernels.h"

#define LRF_ISA baseline
#include "cpu/kernels.inl"

namespace lrfused {
const Kernels kernels_baseline = {"baseline", baseline::measure, baseline::apply};
}

// A parallel loop with the floating-point mode that the arithmetic is defined in.
#pragma once

#include <cstdint>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace lrfused {

// Round to nearest, nothing flushed to zero; the caller's mode comes back at the end. (A
// flush mode set by torch.set_flush_denormal stays on in OpenMP's workers.)
class FloatingPointMode {
  public:
#if defined(__SSE__)
    FloatingPointMode() : saved(_mm_getcsr()) { _mm_setcsr(0x1F80); }
    ~FloatingPointMode() { _mm_setcsr(saved); }

  private:
    unsigned saved;
#endif
};

// True in a child of fork after a parallel region of the parent: OpenMP would hang there.
bool forked_after_parallel();
void note_parallel_region();

// body(i) for i in [0, count), handed out one by one; serial where threads is 1.
template <class Body>
void parallel_for(int64_t count, int threads, Body body) {
    if (threads <= 1 || count <= 1 || forked_after_parallel()) {
        FloatingPointMode mode;
        for (int64_t i = 0; i < count; ++i) body(i);
        return;
    }
    note_parallel_region();
#pragma omp parallel num_threads(threads)
    {
        FloatingPointMode mode;
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < count; ++i) body(i);
    }
}

}  // namespace lrfused

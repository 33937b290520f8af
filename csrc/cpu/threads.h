// A parallel loop with the floating-point mode that the arithmetic is defined in.
#pragma once

#include <atomic>
#include <cstdint>

#if !defined(_OPENMP)
#include <thread>
#include <vector>
#endif
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

// True in a child of fork: OpenMP hangs there once anybody in the parent had a parallel region.
bool forked();

// body() in each of so many threads: OpenMP's pool, which torch's kernels share, or else
// threads of our own.
template <class Body>
void run_in_threads(int threads, Body body) {
#if defined(_OPENMP)
#pragma omp parallel num_threads(threads)
    body();
#else
    std::vector<std::thread> team;
    for (int i = 1; i < threads; ++i) team.emplace_back(body);
    body();
    for (std::thread& thread : team) thread.join();
#endif
}

// body(i) for i in [0, count), handed out one by one; by the caller alone where threads is 1.
template <class Body>
void parallel_for(int64_t count, int threads, Body body) {
    std::atomic<int64_t> next{0};
    auto work = [&] {
        FloatingPointMode mode;
        for (int64_t i = next++; i < count; i = next++) body(i);
    };
    if (threads <= 1 || count <= 1 || forked())
        work();
    else
        run_in_threads(threads, work);
}

}  // namespace lrfused

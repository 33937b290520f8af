// Threads, the objects that synchronise them, and the floating-point mode of the arithmetic.
#pragma once

#include <atomic>
#include <cstdint>

#include <thread>

#if !defined(_OPENMP)
#include <system_error>
#include <vector>
#endif
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace lrfused {

// Round to nearest, no flushing of subnormals; the destructor restores the caller's mode. (A flush
// mode set by torch.set_flush_denormal would otherwise stay on in OpenMP's workers.)
class FloatingPointMode {
  public:
#if defined(__SSE__)
    FloatingPointMode() : saved(_mm_getcsr()) { _mm_setcsr(0x1F80); }
    ~FloatingPointMode() { _mm_setcsr(saved); }

  private:
    unsigned saved;
#endif
};

// True in a forked child, where OpenMP hangs if the parent ever had a parallel region.
bool forked();

// Runs body() in each of at most `threads` threads: OpenMP's pool, which torch's kernels share, or
// else our own threads.
template <class Body>
void run_in_threads(int threads, Body body) {
    auto in_mode = [&] {
        FloatingPointMode mode;
        body();
    };
    if (threads <= 1 || forked()) return in_mode();
#if defined(_OPENMP)
#pragma omp parallel num_threads(threads)
    in_mode();
#else
    std::vector<std::thread> team;
    try {
        for (int i = 1; i < threads; ++i) team.emplace_back(in_mode);
    } catch (const std::system_error&) {
        // No more threads are available: the ones that started share the work.
    }
    in_mode();
    for (std::thread& thread : team) thread.join();
#endif
}

// Hands out [0, count) one by one, and tells which thread finishes last.
class Queue {
  public:
    explicit Queue(int64_t count_) : count(count_) {}

    // Runs body(i) until nothing is left; returns true in the one thread that finishes last.
    template <class Body>
    bool work_off(Body body) {
        int64_t done = 0;
        for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count; ++done) body(i);
        return done && finished.fetch_add(done, std::memory_order_acq_rel) + done == count;
    }

  private:
    const int64_t count;
    alignas(64) std::atomic<int64_t> next{0};
    alignas(64) std::atomic<int64_t> finished{0};
};

// A one-shot gate: wait() blocks until open(); it spins for a while, then yields the core.
class Gate {
  public:
    void open() { is_open.store(true, std::memory_order_release); }

    void wait() const {
        for (int turn = 0; !is_open.load(std::memory_order_acquire); ++turn) {
            if (turn > 2000) std::this_thread::yield();
#if defined(__SSE__)
            else _mm_pause();
#endif
        }
    }

  private:
    alignas(64) std::atomic<bool> is_open{false};
};

}  // namespace lrfused

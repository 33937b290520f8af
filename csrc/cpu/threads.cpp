#include "cpu/threads.h"

#include <atomic>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace lrfused {

static std::atomic<bool> had_parallel_region{false};
static std::atomic<bool> in_child{false};

static void mark_child() {
    if (had_parallel_region) in_child = true;
}

bool forked_after_parallel() { return in_child; }

void note_parallel_region() {
    had_parallel_region = true;
#if defined(__unix__) || defined(__APPLE__)
    static const int registered = pthread_atfork(nullptr, nullptr, mark_child);
    (void)registered;
#endif
}

}  // namespace lrfused

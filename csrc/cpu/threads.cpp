#include "cpu/threads.h"

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace lrfused {

static std::atomic<bool> in_child{false};

#if defined(__unix__) || defined(__APPLE__)
// At library load, since torch's parallel regions before a fork matter as much as ours.
static const int registered = pthread_atfork(nullptr, nullptr, [] { in_child = true; });
#endif

bool forked() {
#if defined(__unix__) || defined(__APPLE__)
    (void)registered;
#endif
    return in_child;
}

}  // namespace lrfused

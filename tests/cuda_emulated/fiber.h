// A thread of a kernel as a fiber: it runs until it gives way, and goes on from there.
#pragma once

#include <csetjmp>
#include <functional>
#include <memory>

#include <ucontext.h>

namespace emulated {

struct FiberContext {
    bool started = false;
    jmp_buf here;
    ucontext_t context;
    std::unique_ptr<char[]> stack;  // of a new fiber; what nobody touches takes no memory
};

inline std::function<void()> body;  // what every fiber does, over and over
inline std::function<void()> ended;
inline jmp_buf scheduler;

inline void give_way(FiberContext& fiber) {
    if (!_setjmp(fiber.here)) _longjmp(scheduler, 1);
}

inline void live() {
    for (;;) {
        body();
        ended();
    }
}

// Until it gives way.
[[gnu::noinline]] inline void resume(FiberContext& fiber, size_t stack) {
    if (_setjmp(scheduler)) return;
    if (fiber.started) _longjmp(fiber.here, 1);
    fiber.started = true;
    fiber.stack.reset(new char[stack]);
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = stack;
    makecontext(&fiber.context, live, 0);
    setcontext(&fiber.context);
}

}  // namespace emulated

// What tests ask of the emulation, by ctypes.
#include "cuda_runtime.h"

#define SHOWN extern "C" __attribute__((visibility("default")))

SHOWN void seed(uint64_t number) { emulated::random.seed(number); }
SHOWN void drop_barrier(const char* place) { emulated::dropped_barrier = place; }
SHOWN void fail(const char* call) { emulated::failing_call = call; }

static const char* joined(std::string text) {
    static std::string kept;
    kept = std::move(text);
    return kept.c_str();
}

// "blocks x threads", one a line, since it was last asked.
SHOWN const char* launches() {
    std::string text;
    for (const std::string& launch : emulated::launches) text += launch + "\n";
    emulated::launches.clear();
    return joined(text);
}

// "file:line", one a line: the barriers that were reached.
SHOWN const char* barriers() {
    std::string text;
    for (const auto& [place, times] : emulated::barriers) text += place + "\n";
    return joined(text);
}

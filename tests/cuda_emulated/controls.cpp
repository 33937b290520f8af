// What tests ask of the emulation, by ctypes.
#include "cuda_runtime.h"

#define SHOWN extern "C" __attribute__((visibility("default")))

SHOWN void seed(uint64_t number) { emulated::random.seed(number); }
SHOWN void drop_barrier(const char* place) { emulated::dropped_barrier = place; }
SHOWN void run_on(emulated::Machine machine) { emulated::machine = machine; }
SHOWN void fail(const char* call) { emulated::failing_call = call; }

static const char* joined(std::string text) {
    static std::string kept;
    kept = std::move(text);
    return kept.c_str();
}

static const char* taken(std::vector<std::string>& lines) {
    std::string text;
    for (const std::string& line : lines) text += line + "\n";
    lines.clear();
    return joined(text);
}

// Since it was last asked: "blocks x threads", one a line; how launches were made, and attributes.
SHOWN const char* launches() { return taken(emulated::launches); }
SHOWN const char* settings() { return taken(emulated::settings); }

// "file:line", one a line: the barriers that were reached.
SHOWN const char* barriers() {
    std::string text;
    for (const auto& [place, times] : emulated::barriers) text += place + "\n";
    return joined(text);
}

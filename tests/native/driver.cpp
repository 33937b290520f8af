// Random steps of the C++ backend, without Python, for the sanitizers: every operand is an
// allocation of its exact size, and every thread count and instruction set has to leave the
// same bits. tests/faults/test_sanitizers.py builds and runs it:
//
//   driver SEED TRIALS   random steps; "ok" at the end
//   driver overflow      plants a gradient that ends after its memory
//   driver misaligned    plants a gradient at an odd address
//   driver race          plants a sum that all threads add to
//
// The last three show that the sanitizers see what the backend does.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "cpu/instruction_set.h"
#include "cpu/step.h"
#include "cpu/threads.h"

using namespace lrfused;

enum class Plant { NOTHING, OVERFLOW, MISALIGNED };

struct Random {
    std::mt19937_64 bits;

    int64_t below(int64_t n) { return static_cast<int64_t>(bits() % static_cast<uint64_t>(n)); }
    bool one_in(int64_t n) { return below(n) == 0; }
    double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }
    double within(double low, double high) { return low + (high - low) * uniform(); }
    template <class T>
    T one_of(std::initializer_list<T> choices) {
        return choices.begin()[below(static_cast<int64_t>(choices.size()))];
    }
};

// Elements whose last byte is the last of an allocation; elements skipped at the front take them
// off every larger alignment.
class Memory {
  public:
    Memory(int dtype, const std::vector<double>& values, int64_t skipped)
        : count(static_cast<int64_t>(values.size())) {
        int64_t size = Stretch{nullptr, dtype}.at(1).data_distance();
        memory.reset(new char[static_cast<size_t>(size * (skipped + count))]);
        stretch = Stretch{memory.get(), dtype}.at(skipped);
        for (int64_t i = 0; i < count; ++i) write(i, values[static_cast<size_t>(i)]);
    }

    Stretch stretch;
    int64_t count;

  private:
    std::unique_ptr<char[]> memory;
};

// Tensors that a table knows the addresses of, all asked at every step whether they lie where they
// did, in some nanoseconds each.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <vector>

#include "host/stable.h"

namespace lrfused {

// Holds tensors, which keeps torch.utils.swap_tensors from giving their Python objects others.
class Handles {
  public:
    Handles() = default;
    ~Handles();
    Handles(const Handles&) = delete;
    Handles& operator=(const Handles&) = delete;

    // False where torch has no such interface, or the tensor no memory to speak of.
    bool add(const pybind11::object& tensor);

    // The memory of each is where it was when it was added, of the same type, shape and strides.
    bool are_unchanged() const;

  private:
    struct Known {
        stable::Handle tensor;
        void* data;
        int32_t type, dimensions;
    };

    // One after the other in memory: thousands are looked at, with cold caches.
    std::vector<Known> known;
    std::vector<int64_t> numbers;  // shape and strides of each
};

}  // namespace lrfused

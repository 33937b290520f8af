// Handles of tensors whose addresses a table holds, to check all of them at every step in some
// nanoseconds each.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <vector>

#include "host/stable.h"

namespace lrfused {

// Owns references to tensors; torch.utils.swap_tensors refuses such tensors.
class Handles {
  public:
    Handles() = default;
    ~Handles();
    Handles(const Handles&) = delete;
    Handles& operator=(const Handles&) = delete;

    // False if torch has no such interface, or the tensor no addressable memory.
    bool add(const pybind11::object& tensor);

    // True if every tensor has the address, dtype, shape and strides that it was added with.
    bool are_unchanged() const;

  private:
    struct Known {
        stable::Handle tensor;
        void* data;
        int32_t type, dimensions;
    };

    // Contiguous, because thousands are checked with cold caches.
    std::vector<Known> known;
    std::vector<int64_t> numbers;  // shape and strides of each
};

}  // namespace lrfused

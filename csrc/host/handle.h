// Tensors through torch's stable C interface: where and how they lie, in some nanoseconds each and
// without Python. The interface is found at run time, so nothing is linked. Documentation:
// https://docs.pytorch.org/docs/stable/notes/libtorch_stable_abi.html
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <vector>

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
    struct Place {
        void* data;
        int32_t dtype;
        int64_t dimensions;
        int64_t *shape, *strides;
    };
    struct Known {
        void *tensor, *data;
        int32_t dtype, dimensions;
    };

    static bool read(void* tensor, Place& place);

    // One after the other in memory: thousands are looked at, with cold caches.
    std::vector<Known> known;
    std::vector<int64_t> numbers;  // shape and strides of each
};

}  // namespace lrfused

// A tensor through torch's stable C interface: where and how it lies, in some nanoseconds and
// without Python. The interface is found at run time, so nothing is linked. Documentation:
// https://docs.pytorch.org/docs/stable/notes/libtorch_stable_abi.html
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace lrfused {

// Holds the tensor behind a Python object, which keeps torch.utils.swap_tensors from giving that
// object another one.
class Handle {
  public:
    // Null where torch has no such interface, or the tensor no memory to speak of.
    static std::unique_ptr<Handle> of(const pybind11::object& tensor);
    ~Handle();
    Handle(const Handle&) = delete;
    Handle& operator=(const Handle&) = delete;

    // Its memory is where it was when this was made, of the same type, shape and strides.
    bool is_unchanged() const;

  private:
    struct Place {
        void* data = nullptr;
        int32_t dtype = 0;
        int64_t dimensions = 0;
        int64_t *shape = nullptr, *strides = nullptr;
    };

    explicit Handle(void* tensor_) : tensor(tensor_) {}
    bool read(Place& place) const;

    void* tensor;
    void* data = nullptr;
    int32_t dtype = 0;
    std::vector<int64_t> shape, strides;
};

}  // namespace lrfused

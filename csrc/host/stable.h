// torch's stable C interface: where and how tensors lie, in some nanoseconds each. Documentation:
// https://docs.pytorch.org/docs/stable/notes/libtorch_stable_abi.html
#pragma once

#include <optional>

#include "host/tensor_reader.h"

namespace lrfused {
namespace stable {

// A tensor of C++ (AtenTensorHandle): it owns a reference, and has to be released.
using Handle = void*;

// Null where torch has no such interface or the object is no tensor.
Handle make_handle(const pybind11::object& tensor);
void release(Handle handle);
bool read(Handle handle, TensorView& view);  // all but the device, which follows from the address

// From any Python object, without owning it; to be used where there is a reader.
bool read_object(PyObject* object, TensorView& view);
std::optional<TensorReader> reader();

}  // namespace stable
}  // namespace lrfused

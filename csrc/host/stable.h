// torch's stable C interface: a tensor's address and layout in some nanoseconds. Documentation:
// https://docs.pytorch.org/docs/stable/notes/libtorch_stable_abi.html
#pragma once

#include <optional>

#include "host/tensor_reader.h"

namespace lrfused {
namespace stable {

// A C++ tensor (AtenTensorHandle); owns a reference and must be released.
using Handle = void*;

// Torch's function that makes handles, or None; to be looked up once for many.
pybind11::object handle_maker();
// Null if there is none, or the object is not a tensor.
Handle make_handle(const pybind11::object& maker, const pybind11::object& tensor);
void release(Handle handle);
bool read(Handle handle, TensorView& view);  // all but the device, which is fixed by the address
// True if the tensor is as `read` found it, at a real address: above LARGEST_OFFSET.
bool is_as_before(Handle handle, const void* data, int32_t type, int64_t dimensions,
                  const int64_t* shape_and_strides);

// Reads a Python object without owning it; to be used only if there is a reader.
bool read_object(PyObject* object, TensorView& view);
std::optional<TensorReader> reader();

}  // namespace stable
}  // namespace lrfused

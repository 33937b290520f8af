// Reads a tensor's address and layout without torch's headers: nothing is linked; interfaces are
// found at run time, and used only after a test against Python's answers on probe tensors.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

namespace lrfused {

// A tensor's address and layout; the arrays belong to the tensor.
struct TensorView {
    void* data = nullptr;  // null if the storage was freed
    int32_t device_type = 0, device_index = 0;  // the interface's own codes, only for comparison
    int32_t type = 0;                           // the interface's code of the dtype
    int dtype = -1;                             // a Dtype; -1 for any other
    int64_t dimensions = 0;
    const int64_t *shape = nullptr, *strides = nullptr;  // strides in elements
};

// For freed storage torch reports a tensor's offset as its address. One below this bound might be
// that; real addresses that low are rare, and larger offsets do not exist.
constexpr uintptr_t LARGEST_OFFSET = uintptr_t(1) << 36;

// One such interface. It keeps no references, so that torch.utils.swap_tensors still works.
struct TensorReader {
    const char* name;
    // False if the tensor has no addressable memory; leaves no Python exception set.
    bool (*read)(PyObject* tensor, TensorView& view);
};

// The readers that work with this torch, best first. If empty, there is no Guard.
const std::vector<TensorReader>& tensor_readers();

// The one of this name; throws if it is not among them.
const TensorReader& reader_of(const std::string& name);

// Reads an attribute through the C getter behind it, which is cheaper than a lookup by name.
class Getter {
  public:
    Getter(const pybind11::object& type, const char* name)
        : key(pybind11::str(name)), descriptor(type.attr(name)) {
        if (Py_TYPE(descriptor.ptr()) == &PyGetSetDescr_Type)
            getter = reinterpret_cast<PyGetSetDescrObject*>(descriptor.ptr())->d_getset;
    }

    // A new reference, or null with a Python exception set.
    PyObject* operator()(PyObject* object) const {
        bool is_one = getter && PyObject_TypeCheck(object, PyDescr_TYPE(descriptor.ptr()));
        return is_one ? getter->get(object, getter->closure)
                      : PyObject_GetAttr(object, key.ptr());
    }

  private:
    pybind11::object key, descriptor;
    PyGetSetDef* getter = nullptr;
};

}  // namespace lrfused

// Where and how a tensor lies in memory, asked of torch without its headers: nothing is linked, the
// interfaces are found at run time, and proved on tensors that Python describes before they are used.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <vector>

namespace lrfused {

// What an interface said; the arrays belong to the tensor.
struct TensorView {
    void* data = nullptr;  // null where the storage was freed
    int32_t device_type = 0, device_index = 0;  // the interface's own numbers, to be compared
    int32_t type = 0;                           // the same of the dtype
    int dtype = -1;                             // a Dtype; -1 for any other
    int64_t dimensions = 0;
    const int64_t *shape = nullptr, *strides = nullptr;  // strides in elements
};

// One way to ask. It holds no reference to what it has read: swap_tensors goes on working.
struct TensorReader {
    const char* name;
    // False if the tensor has no memory to speak of; no Python exception is left.
    bool (*read)(PyObject* tensor, TensorView& view);
};

// Those that this torch has and that were proved, the best first. With none there is no Guard.
const std::vector<TensorReader>& tensor_readers();

// An attribute of tensors by the C function behind it: a lookup by name each would cost more than
// that function does.
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

// Reads attributes of parameters and gradients, besides address and layout.
#pragma once

#include <pybind11/pybind11.h>

#include "host/tensor_reader.h"

namespace lrfused {

namespace py = pybind11;

class Asker {
  public:
    Asker() : grad(tensor_type(), "grad"), is_neg_descriptor(tensor_type().attr("is_neg")) {
        if (Py_TYPE(is_neg_descriptor.ptr()) == &PyMethodDescr_Type) {
            is_neg_method = reinterpret_cast<PyMethodDescrObject*>(is_neg_descriptor.ptr())->d_method;
            if (is_neg_method->ml_flags != METH_NOARGS) is_neg_method = nullptr;
        }
    }

    PyObject* is_neg(PyObject* tensor) const {
        return is_neg_method ? is_neg_method->ml_meth(tensor, nullptr)
                             : PyObject_CallOneArg(is_neg_descriptor.ptr(), tensor);
    }

    const Getter grad;

  private:
    static py::object tensor_type() { return py::module_::import("torch").attr("Tensor"); }

    py::object is_neg_descriptor;
    PyMethodDef* is_neg_method = nullptr;
};

// Lives as long as the process, like torch's types.
inline const Asker& asker() {
    static const Asker* the_one = new Asker();
    return *the_one;
}

inline py::object gradient_of(py::handle param) {
    auto gradient = py::reinterpret_steal<py::object>(asker().grad(param.ptr()));
    if (!gradient) throw py::error_already_set();
    return gradient;
}

}  // namespace lrfused

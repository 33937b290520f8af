// Finds parameters that need a closer look, among thousands that do not.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "host/tensor_reader.h"

namespace lrfused {

namespace py = pybind11;

// Those of these parameters, which have a gradient, that are not plain: contiguous tensors of real
// numbers on one device, of one shape. reader: the name of one of tensor_readers().
py::list odd_pairs(const py::list& params, const std::string& reader);

}  // namespace lrfused

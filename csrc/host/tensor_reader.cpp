#include "host/tensor_reader.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <exception>

#include "core/dtypes.h"
#include "host/dlpack.h"
#include "host/stable.h"

namespace lrfused {

namespace py = pybind11;

static bool same_numbers(const int64_t* numbers, const py::object& expected) {
    auto values = expected.cast<std::vector<int64_t>>();
    return std::equal(values.begin(), values.end(), numbers);
}

// Compares an interface's answer with Python's for the same tensor.
static bool is_right(const TensorReader& reader, const py::object& tensor, int dtype) {
    TensorView view;
    return reader.read(tensor.ptr(), view) && view.dtype == dtype &&
           reinterpret_cast<uintptr_t>(view.data) == tensor.attr("data_ptr")().cast<uintptr_t>() &&
           view.dimensions == tensor.attr("dim")().cast<int64_t>() &&
           same_numbers(view.shape, tensor.attr("shape")) &&
           same_numbers(view.strides, tensor.attr("stride")());
}

// Tests a reader on views with offsets and strides, parameters, 0-dim and empty tensors, in every
// dtype, and on objects that it must refuse.
static bool is_proved(const TensorReader& reader) {
    py::module_ torch = py::module_::import("torch");
    py::object parameter = torch.attr("nn").attr("Parameter");
    const char* names[] = {"float64", "float32", "bfloat16", "float16"};
    for (int dtype : {FLOAT64, FLOAT32, BFLOAT16, FLOAT16}) {
        py::object whole = torch.attr("empty")(py::make_tuple(3, 5), py::arg("device") = "cpu",
                                               py::arg("dtype") = torch.attr(names[dtype]));
        py::object part = whole.attr("t")().attr("narrow")(0, 1, 3);
        for (const py::object& tensor :
             {whole, part, py::object(whole.attr("select")(0, 2).attr("select")(0, 4)),
              py::object(whole.attr("narrow")(1, 2, 0)), parameter(part), parameter(whole)})
            if (!is_right(reader, tensor, dtype)) return false;
    }
    TensorView view;
    py::object sparse = torch.attr("empty")(3, py::arg("device") = "cpu").attr("to_sparse")();
    return !reader.read(sparse.ptr(), view) && !reader.read(Py_None, view);
}

static std::vector<TensorReader> find_readers() {
    std::vector<TensorReader> readers;
    for (const auto& find : {dlpack::reader, stable::reader}) {
        try {
            if (auto reader = find(); reader && is_proved(*reader)) readers.push_back(*reader);
        } catch (const std::exception&) {
            // An unknown version of torch: this interface is not used.
        }
    }
    return readers;
}

const std::vector<TensorReader>& tensor_readers() {
    static const std::vector<TensorReader> proved = find_readers();
    return proved;
}

const TensorReader& reader_of(const std::string& name) {
    for (const TensorReader& reader : tensor_readers())
        if (name == reader.name) return reader;
    throw py::value_error("reader: there is no " + name + " that could be proved");
}

}  // namespace lrfused

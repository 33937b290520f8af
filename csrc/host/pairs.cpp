#include "host/pairs.h"

#include <algorithm>

#include "host/asker.h"

namespace lrfused {

static bool is_contiguous(const TensorView& view) {
    int64_t expected = 1;
    for (int64_t i = view.dimensions - 1; i >= 0; --i) {
        if (view.shape[i] != 1 && view.strides[i] != expected) return false;
        expected *= view.shape[i];
    }
    return true;
}

static bool is_plain(const TensorReader& reader, PyObject* tensor, TensorView& view) {
    return reader.read(tensor, view) && view.dtype >= 0 && is_contiguous(view) &&
           (view.data || std::count(view.shape, view.shape + view.dimensions, 0));
}

py::list odd_pairs(const py::list& params, const std::string& name) {
    const TensorReader& reader = reader_of(name);
    const py::module_ torch = py::module_::import("torch");
    const py::object tensor = torch.attr("Tensor"), parameter = torch.attr("nn").attr("Parameter");
    py::list odd;
    for (py::handle param : params) {
        TensorView p, g;
        const py::object gradient = gradient_of(param);
        const bool are_plain =
            (py::type::handle_of(param).is(tensor) || py::type::handle_of(param).is(parameter)) &&
            py::type::handle_of(gradient).is(tensor) && is_plain(reader, param.ptr(), p) &&
            is_plain(reader, gradient.ptr(), g) && p.device_type == g.device_type &&
            p.device_index == g.device_index && p.dimensions == g.dimensions &&
            std::equal(p.shape, p.shape + p.dimensions, g.shape);
        if (!are_plain) odd.append(param);
    }
    return odd;
}

}  // namespace lrfused

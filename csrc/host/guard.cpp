#include "host/guard.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "core/dtypes.h"
#include "host/asker.h"

namespace lrfused {

Guard::Guard(const py::list& groups, const py::dict& states_, const py::list& params_,
             const py::list& watched_, const py::tuple& keys_, bool writes_,
             const std::string& reader_)
    : places(reader_of(reader_)),
      writes(writes_),
      watched(places),
      states(places),
      params_key(py::str("params")),
      tensor_type(py::module_::import("torch").attr("Tensor")) {
    std::vector<PyObject*> objects;
    for (py::handle row : params_) {
        auto [object, group, has_state, plain] =
            row.cast<std::tuple<py::object, int64_t, bool, bool>>();
        Place place = has_state ? places.of(object) : Place();
        params.push_back({object, group, has_state, plain, place});
        objects.push_back(object.ptr());
    }
    watch(watched_);
    for (py::handle key : keys_) keys.push_back(py::reinterpret_borrow<py::object>(key));
    states.take(states_, objects);
    remember(groups);
}

void Guard::watch(const py::list& tensors) {
    for (size_t i = 0; i < std::max(tensors.size(), watched.size()); ++i) {
        if (i < tensors.size()) watched.set(i, tensors[i]);
        else watched.clear(i);
    }
}

void Guard::update(size_t index, bool has_state, bool plain, const py::dict& states_) {
    Param& param = params.at(index);
    param.has_state = has_state;
    param.plain = plain;
    if (has_state) param.place = places.of(param.object, param.place);
    states.take_one(states_, param.object.ptr(), index);
}

void Guard::remember(const py::list& groups) {
    std::vector<py::object> now;
    for (py::handle group : groups)
        for (const py::object& key : keys)
            now.push_back(py::reinterpret_borrow<py::object>(
                PyDict_GetItemWithError(group.ptr(), key.ptr())));
    values = std::move(now);
}

// True if a value may have changed in place, as the same object.
static bool may_have_changed(PyObject* value, PyObject* tensor_type) {
    if (value == nullptr || value == Py_None || PyFloat_Check(value) || PyLong_Check(value) ||
        PyTuple_Check(value))
        return false;
    return !PyObject_TypeCheck(value, reinterpret_cast<PyTypeObject*>(tensor_type));
}

bool Guard::groups_are_those(const py::list& groups) const {
    size_t i = 0;
    for (py::handle group : groups)
        for (const py::object& key : keys) {
            PyObject* value = PyDict_GetItemWithError(group.ptr(), key.ptr());
            if (value != values[i++].ptr() || may_have_changed(value, tensor_type.ptr()))
                return false;
        }
    return true;
}

bool Guard::params_are_those(const py::list& groups) const {
    size_t index = 0;
    int64_t g = 0;
    for (py::handle group : groups) {
        if (!PyDict_Check(group.ptr())) return false;
        PyObject* list = PyDict_GetItemWithError(group.ptr(), params_key.ptr());
        if (list == nullptr || !PyList_Check(list)) return false;
        for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); ++i, ++index)
            if (index >= params.size() || params[index].group != g ||
                PyList_GET_ITEM(list, i) != params[index].object.ptr())
                return false;
        ++g;
    }
    return index == params.size() && static_cast<size_t>(g) * keys.size() == values.size();
}

bool Guard::is_plain_gradient(PyObject* gradient, const Param& param, int64_t* row) const {
    TensorView view;
    if (!param.plain || Py_TYPE(gradient) != reinterpret_cast<PyTypeObject*>(tensor_type.ptr()) ||
        !places.reader.read(gradient, view) || view.dtype < 0 ||
        !places.has_layout(view, param.place))
        return false;
    const int64_t* shape = places.shape(param.place);
    bool empty = std::count(shape, shape + view.dimensions, 0) > 0;
    if (view.data == nullptr && !empty) return false;
    constexpr uintptr_t size[] = {8, 4, 2, 2};
    if (reinterpret_cast<uintptr_t>(view.data) % size[view.dtype]) return false;
    PyObject* negated = asker().is_neg(gradient);
    Py_XDECREF(negated);
    if (negated == nullptr) PyErr_Clear();
    row[0] = static_cast<int64_t>(reinterpret_cast<intptr_t>(view.data));
    row[1] = view.dtype;
    return negated == Py_False;
}

int64_t Guard::elements(const Param& param) const {
    const int64_t* shape = places.shape(param.place);
    return std::accumulate(shape, shape + param.place.view.dimensions, int64_t(1),
                           std::multiplies<int64_t>());
}

bool Guard::gradients_share_memory(const int64_t* rows) const {
    std::vector<std::pair<int64_t, int64_t>> ranges;
    for (size_t i = 0; i < params.size(); ++i) {
        const int64_t address = rows[2 * i], dtype = rows[2 * i + 1];
        if (dtype < 0) continue;
        if (const int64_t size = elements(params[i]) << size_shift(static_cast<int>(dtype)))
            ranges.emplace_back(address, address + size);
    }
    std::sort(ranges.begin(), ranges.end());
    for (size_t i = 1; i < ranges.size(); ++i)
        if (ranges[i].first < ranges[i - 1].second) return true;
    return false;
}

int64_t* Guard::rows_of(Addresses& gradients) const {
    if (gradients.ndim() != 2 || gradients.shape(1) != 2 ||
        gradients.shape(0) != static_cast<py::ssize_t>(params.size()))
        throw py::value_error("gradients: must have a row of two for every parameter");
    return gradients.mutable_data();
}

bool Guard::read_gradient(const py::object& gradient, const Param& param, int64_t* row) const {
    const bool is_none = gradient.is_none();
    const bool is_plain = !is_none && is_plain_gradient(gradient.ptr(), param, row);
    if (!is_plain) row[1] = -1;
    return is_none || is_plain;
}

py::object Guard::look(const py::list& groups, const py::dict& states_, Addresses gradients) {
    int64_t* row = rows_of(gradients);
    std::vector<char> is_changed(params.size());
    if (!params_are_those(groups) || !states.find_changed(states_, is_changed) ||
        !watched.are_unchanged(0, watched.size()))
        return py::none();
    // In loops of their own: short ones overlap more of what they wait for where the cache is cold.
    for (size_t i = 0; i < params.size(); ++i)
        if (params[i].has_state && !places.lies_at(params[i].object, params[i].place))
            is_changed[i] = true;
    py::list params_with_grad, odd, changed;
    for (size_t i = 0; i < params.size(); ++i, row += 2) {
        const Param& param = params[i];
        const py::object gradient = gradient_of(param.object);
        const bool has_gradient = !gradient.is_none();
        if (has_gradient) params_with_grad.append(param.object);
        if (is_changed[i] || (!param.has_state && has_gradient)) {
            changed.append(i);
            row[1] = -1;
        } else if (!read_gradient(gradient, param, row)) {
            odd.append(i);
        }
    }
    // What is changed is looked at again, by `read`.
    if (writes && (odd.size() || (!changed.size() && gradients_share_memory(gradients.data()))))
        return py::none();
    return py::make_tuple(!groups_are_those(groups), params_with_grad, odd, changed);
}

py::object Guard::read(const std::vector<size_t>& indices, Addresses gradients) const {
    int64_t* rows = rows_of(gradients);
    py::list odd;
    for (size_t i : indices)
        if (!read_gradient(gradient_of(params.at(i).object), params[i], rows + 2 * i))
            odd.append(i);
    if (writes && (odd.size() || gradients_share_memory(rows))) return py::none();
    return std::move(odd);
}

}  // namespace lrfused

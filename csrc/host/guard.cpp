#include "host/guard.h"

#include <algorithm>

#include "core/dtypes.h"

namespace lrfused {

// Reads attributes of parameters and gradients, besides address and layout.
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
static const Asker& asker() {
    static const Asker* the_one = new Asker();
    return *the_one;
}

static TensorReader reader_of(const std::string& name) {
    for (const TensorReader& reader : tensor_readers())
        if (name == reader.name) return reader;
    throw py::value_error("reader: there is no " + name + " that could be proved");
}

Place Guard::place_of(const py::object& object) {
    TensorView view;
    if (!reader.read(object.ptr(), view)) return {};
    size_t first = numbers.size();
    numbers.insert(numbers.end(), view.shape, view.shape + view.dimensions);
    numbers.insert(numbers.end(), view.strides, view.strides + view.dimensions);
    view.shape = view.strides = nullptr;
    return {true, view, first};
}

bool Guard::has_layout(const TensorView& view, const Place& place) const {
    const TensorView& then = place.view;
    const int64_t *shape = numbers.data() + place.numbers, *strides = shape + then.dimensions;
    return then.device_type == view.device_type && then.device_index == view.device_index &&
           then.dimensions == view.dimensions && std::equal(shape, strides, view.shape) &&
           std::equal(strides, strides + then.dimensions, view.strides);
}

bool Guard::lies_at(const py::object& object, const Place& place) const {
    TensorView view;
    return place.known && reader.read(object.ptr(), view) && place.view.data == view.data &&
           place.view.type == view.type && has_layout(view, place);
}

using Items = std::vector<std::pair<py::object, py::object>>;

static void add_items(const py::dict& dict, Items& items) {
    for (auto [key, value] : dict)
        items.emplace_back(py::reinterpret_borrow<py::object>(key),
                           py::reinterpret_borrow<py::object>(value));
}

// True if the dictionary has the same objects in the same order. No key is hashed: that is slow for
// tensors.
static bool same_items(PyObject* dict, const Items& items, size_t first, size_t end) {
    if (!PyDict_Check(dict) || PyDict_GET_SIZE(dict) != static_cast<Py_ssize_t>(end - first))
        return false;
    Py_ssize_t position = 0;
    PyObject *key, *value;
    for (size_t i = first; PyDict_Next(dict, &position, &key, &value); ++i)
        if (key != items[i].first.ptr() || value != items[i].second.ptr()) return false;
    return true;
}

Guard::Guard(const py::list& groups, const py::dict& states_, const py::list& params_,
           const py::list& watched_, const py::tuple& keys_, bool writes_,
           const std::string& reader_)
    : reader(reader_of(reader_)),
      writes(writes_),
      params_key(py::str("params")),
      tensor_type(py::module_::import("torch").attr("Tensor")) {
    for (py::handle row : params_) {
        auto [object, group, has_state, plain] =
            row.cast<std::tuple<py::object, int64_t, bool, bool>>();
        params.push_back({object, group, has_state, plain, has_state ? place_of(object) : Place()});
    }
    for (py::handle row : watched_) {
        auto object = py::reinterpret_borrow<py::object>(row);
        if (!handles.add(object)) watched.emplace_back(object, place_of(object));
    }
    for (py::handle key : keys_) keys.push_back(py::reinterpret_borrow<py::object>(key));
    add_items(states_, states);
    for (const auto& [key, value] : states) {
        state_starts.push_back(state_items.size());
        if (PyDict_Check(value.ptr()))  // torch allows other values in its state
            add_items(py::reinterpret_borrow<py::dict>(value), state_items);
    }
    state_starts.push_back(state_items.size());
    remember(groups);
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

bool Guard::states_are_those(const py::dict& dict) const {
    if (!same_items(dict.ptr(), states, 0, states.size())) return false;
    for (size_t i = 0; i < states.size(); ++i)
        if (PyDict_Check(states[i].second.ptr()) &&
            !same_items(states[i].second.ptr(), state_items, state_starts[i], state_starts[i + 1]))
            return false;
    return true;
}

bool Guard::memory_is_the_same() const {
    for (const Param& param : params)
        if (param.has_state && !lies_at(param.object, param.place)) return false;
    for (const auto& [object, place] : watched)
        if (!lies_at(object, place)) return false;
    return handles.are_unchanged();
}

bool Guard::is_plain_gradient(PyObject* gradient, const Param& param, int64_t* row) const {
    TensorView view;
    if (!param.plain || Py_TYPE(gradient) != reinterpret_cast<PyTypeObject*>(tensor_type.ptr()) ||
        !reader.read(gradient, view) || view.dtype < 0 || !has_layout(view, param.place))
        return false;
    const int64_t* shape = numbers.data() + param.place.numbers;
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

// Of plain gradients, as rows of (address, dtype).
static bool share_memory(const std::vector<const int64_t*>& rows,
                         const std::vector<int64_t>& sizes) {
    std::vector<std::pair<int64_t, int64_t>> ranges;
    for (size_t i = 0; i < rows.size(); ++i)
        if (sizes[i])
            ranges.emplace_back(rows[i][0], rows[i][0] + (sizes[i] << size_shift(rows[i][1])));
    std::sort(ranges.begin(), ranges.end());
    for (size_t i = 1; i < ranges.size(); ++i)
        if (ranges[i].first < ranges[i - 1].second) return true;
    return false;
}

int64_t Guard::elements(const Param& param) const {
    int64_t count = 1;
    for (int i = 0; i < param.place.view.dimensions; ++i)
        count *= numbers[param.place.numbers + static_cast<size_t>(i)];
    return count;
}

py::object Guard::look(const py::list& groups, const py::dict& states_,
                      py::array_t<int64_t, py::array::c_style> gradients) {
    if (gradients.ndim() != 2 || gradients.shape(1) != 2 ||
        gradients.shape(0) != static_cast<py::ssize_t>(params.size()))
        throw py::value_error("gradients: must have a row of two for every parameter");
    if (!params_are_those(groups) || !states_are_those(states_) || !memory_is_the_same())
        return py::none();
    py::list params_with_grad, odd;
    std::vector<const int64_t*> written;
    std::vector<int64_t> sizes;
    int64_t* row = gradients.mutable_data();
    for (size_t i = 0; i < params.size(); ++i, row += 2) {
        row[1] = -1;
        auto gradient = py::reinterpret_steal<py::object>(asker().grad(params[i].object.ptr()));
        if (!gradient) throw py::error_already_set();
        if (gradient.is_none()) continue;
        if (!params[i].has_state) return py::none();
        params_with_grad.append(params[i].object);
        if (!is_plain_gradient(gradient.ptr(), params[i], row)) {
            row[1] = -1;
            odd.append(i);
        } else if (writes) {
            written.push_back(row);
            sizes.push_back(elements(params[i]));
        }
    }
    if (writes && (odd.size() || share_memory(written, sizes))) return py::none();
    return py::make_tuple(!groups_are_those(groups), params_with_grad, odd);
}

}  // namespace lrfused

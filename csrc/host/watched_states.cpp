#include "host/watched_states.h"

namespace lrfused {

static PyTypeObject* tensor_type() {
    static const py::object* type = new py::object(py::module_::import("torch").attr("Tensor"));
    return reinterpret_cast<PyTypeObject*>(type->ptr());
}

void WatchedStates::take(const py::dict& now, const std::vector<PyObject*>& params) {
    std::unordered_map<PyObject*, size_t> places;
    for (size_t i = 0; i < params.size(); ++i) places[params[i]] = i;
    state_of.assign(params.size(), -1);
    for (auto [key, value] : now) {
        const auto place = places.find(key.ptr());
        const bool is_known = place != places.end();
        if (is_known) state_of[place->second] = static_cast<int64_t>(states.size());
        states.push_back({py::reinterpret_borrow<py::object>(key),
                          py::reinterpret_borrow<py::object>(value),
                          is_known ? static_cast<int64_t>(place->second) : NOBODY});
        fill(states.back());
    }
}

void WatchedStates::take_one(const py::dict& now, PyObject* param, size_t index) {
    PyObject* value = PyDict_GetItemWithError(now.ptr(), param);
    if (!value && PyErr_Occurred()) throw py::error_already_set();
    if (!value) return;
    if (state_of[index] < 0) {
        state_of[index] = static_cast<int64_t>(states.size());
        states.push_back({py::reinterpret_borrow<py::object>(param), {}, static_cast<int64_t>(index)});
    }
    State& state = states[static_cast<size_t>(state_of[index])];
    state.value = py::reinterpret_borrow<py::object>(value);
    fill(state);
}

// What stands in a state's dictionary: in its present ranges if it fits, else at the end.
void WatchedStates::fill(State& state) {
    std::vector<std::pair<py::object, py::object>> now;
    if (PyDict_Check(state.value.ptr()))  // torch allows other values in its state
        for (auto [key, value] : py::reinterpret_borrow<py::dict>(state.value))
            now.emplace_back(py::reinterpret_borrow<py::object>(key),
                             py::reinterpret_borrow<py::object>(value));
    if (now.size() > state.item_room) {
        outdated += state.item_room;
        state.first_item = items.size();
        state.item_room = now.size();
        items.resize(items.size() + now.size());
    }
    state.items = now.size();
    size_t count = 0;
    for (const auto& item : now) count += PyObject_TypeCheck(item.second.ptr(), tensor_type());
    if (count > state.tensor_room) {
        for (size_t i = 0; i < state.tensors; ++i) tensors.clear(state.first_tensor + i);
        outdated += state.tensor_room;
        state.first_tensor = tensors.size();
        state.tensor_room = count;
    }
    for (size_t i = count; i < state.tensors; ++i) tensors.clear(state.first_tensor + i);
    state.tensors = count;
    size_t next = state.first_tensor;
    for (size_t i = 0; i < now.size(); ++i) {
        if (PyObject_TypeCheck(now[i].second.ptr(), tensor_type()))
            tensors.set(next++, now[i].second);
        items[state.first_item + i] = std::move(now[i]);
    }
}

// The same objects in the same order. No key is hashed: that is slow for tensors.
bool WatchedStates::has_the_same_items(const State& state) const {
    PyObject *dict = state.value.ptr(), *key, *value;
    if (!PyDict_Check(dict)) return true;
    if (PyDict_GET_SIZE(dict) != static_cast<Py_ssize_t>(state.items)) return false;
    Py_ssize_t position = 0;
    for (size_t i = state.first_item; PyDict_Next(dict, &position, &key, &value); ++i)
        if (key != items[i].first.ptr() || value != items[i].second.ptr()) return false;
    return true;
}

bool WatchedStates::find_changed(const py::dict& now, std::vector<char>& changed) const {
    if (outdated > 1000 + (items.size() + tensors.size()) / 2 ||
        PyDict_GET_SIZE(now.ptr()) != static_cast<Py_ssize_t>(states.size()))
        return false;
    // All tensors in a row, which takes less time where thousands are not in the cache; only if one
    // of them moved, each state's own.
    const bool none_moved = tensors.are_unchanged(0, tensors.size());
    Py_ssize_t position = 0;
    PyObject *key, *value;
    for (size_t i = 0; PyDict_Next(now.ptr(), &position, &key, &value); ++i) {
        const State& state = states[i];
        if (key != state.key.ptr()) return false;
        if (value == state.value.ptr() && has_the_same_items(state) &&
            (none_moved || tensors.are_unchanged(state.first_tensor, state.tensors)))
            continue;
        if (state.param == NOBODY) return false;
        changed[static_cast<size_t>(state.param)] = true;
    }
    return true;
}

}  // namespace lrfused

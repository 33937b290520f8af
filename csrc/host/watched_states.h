// An optimizer's state as the guard knows it: every dictionary, what stands in it, and where its
// tensors lie.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "host/memory.h"

namespace lrfused {

namespace py = pybind11;

class WatchedStates {
  public:
    explicit WatchedStates(Places& places) : tensors(places) {}

    // Takes all of it for known; params: the keys of those that may change one by one.
    void take(const py::dict& states, const std::vector<PyObject*>& params);

    // Takes the state of one parameter for known; a new one has to stand last in the dictionary.
    void take_one(const py::dict& states, PyObject* param, size_t index);

    // Marks the parameters whose state is another now. False if anything else is, or if so much of
    // what was kept is out of date that it should be taken anew.
    bool find_changed(const py::dict& states, std::vector<char>& changed) const;

  private:
    static constexpr int64_t NOBODY = -1;

    // Ranges of `items` and `tensors`.
    struct State {
        py::object key, value;
        int64_t param;  // whose it is, or NOBODY
        size_t first_item = 0, items = 0, first_tensor = 0, tensors = 0;
        size_t item_room = 0, tensor_room = 0;  // of these ranges: so many fit
    };

    void fill(State& state);
    bool has_the_same_items(const State& state) const;

    std::vector<State> states;
    std::vector<int64_t> state_of;  // of each parameter: its place in `states`, or -1
    std::vector<std::pair<py::object, py::object>> items;
    Memory tensors;
    size_t outdated = 0;  // items and tensors in ranges that were left
};

}  // namespace lrfused

// The walk before a step: is everything still what the table was built from, and where are the
// gradients? Whatever it does not know it leaves to lrfused/engine/, which knows everything.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "host/handle.h"
#include "host/tensor_reader.h"

namespace lrfused {

namespace py = pybind11;

// Where a tensor lies, and how.
struct Place {
    bool known = false;
    TensorView view;     // without shape and strides, which may change
    size_t numbers = 0;  // where those begin in a Guard's numbers
};

class Guard {
  public:
    // params: (parameter, group, has state, plain: its memory is used as it is); watched: other
    // tensors whose addresses the table knows; keys: the entries of a group to be watched; reader:
    // the name of one of tensor_readers().
    Guard(const py::list& groups, const py::dict& states, const py::list& params,
         const py::list& watched, const py::tuple& keys, const std::string& reader);

    // None if the table may be out of date. Otherwise whether the caller wrote to a group, the
    // parameters with a gradient, and the places of the gradients that need a closer look; all
    // others stand in ``gradients``, as (address, dtype), dtype -1 where there is none.
    py::object look(const py::list& groups, const py::dict& states,
                    py::array_t<int64_t, py::array::c_style> gradients);

    // What stands in the groups now is known.
    void remember(const py::list& groups);

  private:
    struct Param {
        py::object object;
        int64_t group;
        bool has_state, plain;
        Place place;
    };
    using Items = std::vector<std::pair<py::object, py::object>>;

    Place place_of(const py::object& tensor);  // not known if the reader cannot describe it
    bool lies_at(const py::object& tensor, const Place& place) const;
    bool has_layout(const TensorView& view, const Place& place) const;
    bool params_are_those(const py::list& groups) const;
    bool states_are_those(const py::dict& states) const;
    bool groups_are_those(const py::list& groups) const;
    bool memory_is_the_same() const;
    bool is_plain_gradient(PyObject* gradient, const Param& param, int64_t* row) const;

    TensorReader reader;
    std::vector<Param> params;
    Handles handles;  // of what is watched, where torch has such things; a parameter may be swapped
    std::vector<std::pair<py::object, Place>> watched;  // the rest of it
    std::vector<int64_t> numbers;
    std::vector<py::object> keys, values;  // values: by group, then key
    py::object params_key, tensor_type;
    Items states, state_items;        // state_items: of one state after the other
    std::vector<size_t> state_starts;  // where each begins, and the end
};

}  // namespace lrfused

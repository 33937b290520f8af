// The guard of the fast path: checks before a step that nothing changed since the table was built,
// and reads the gradients' addresses. Anything else is left to the slow path in lrfused/engine/.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "host/handle.h"
#include "host/tensor_reader.h"

namespace lrfused {

namespace py = pybind11;

// A tensor's address and layout.
struct Place {
    bool known = false;
    TensorView view;     // its shape and strides pointers are not kept: they may change
    size_t numbers = 0;  // index of shape, then strides, in Guard::numbers
};

class Guard {
  public:
    // params: (parameter, group, has state, plain: nothing of it is staged); watched: other tensors
    // whose addresses the table holds; keys: the entries of a group to watch; writes: the step
    // changes gradients, which may not share memory then; reader: the name of one of
    // tensor_readers().
    Guard(const py::list& groups, const py::dict& states, const py::list& params,
         const py::list& watched, const py::tuple& keys, bool writes, const std::string& reader);

    // None if the table may be stale. Otherwise whether the caller wrote to a group, the parameters
    // with a gradient, and the indices of gradients that need staging; all others are written to
    // ``gradients`` as (address, dtype), with dtype -1 for no gradient.
    py::object look(const py::list& groups, const py::dict& states,
                    py::array_t<int64_t, py::array::c_style> gradients);

    // Takes the present values in the groups as known.
    void remember(const py::list& groups);

  private:
    struct Param {
        py::object object;
        int64_t group;
        bool has_state, plain;
        Place place;
    };
    using Items = std::vector<std::pair<py::object, py::object>>;

    Place place_of(const py::object& tensor);  // known = false if the reader fails
    bool lies_at(const py::object& tensor, const Place& place) const;
    bool has_layout(const TensorView& view, const Place& place) const;
    bool params_are_those(const py::list& groups) const;
    bool states_are_those(const py::dict& states) const;
    bool groups_are_those(const py::list& groups) const;
    bool memory_is_the_same() const;
    int64_t elements(const Param& param) const;
    bool is_plain_gradient(PyObject* gradient, const Param& param, int64_t* row) const;

    TensorReader reader;
    bool writes;
    std::vector<Param> params;
    Handles handles;  // of watched tensors, if supported; not parameters, which may be swapped
    std::vector<std::pair<py::object, Place>> watched;  // those without a handle
    std::vector<int64_t> numbers;
    std::vector<py::object> keys, values;  // values: by group, then key
    py::object params_key, tensor_type;
    Items states, state_items;        // state_items: those of all states, concatenated
    std::vector<size_t> state_starts;  // the first item of each state, and the end
};

}  // namespace lrfused

// The guard of the fast path: finds before a step what changed since the table was built, and reads
// the gradients' addresses. What it finds, or cannot decide, is left to lrfused/engine/.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "host/memory.h"
#include "host/watched_states.h"

namespace lrfused {

namespace py = pybind11;

class Guard {
  public:
    using Addresses = py::array_t<int64_t, py::array::c_style>;

    // params: (parameter, group, has state, plain: nothing of it is staged); watched: other tensors
    // whose addresses the table holds; keys: the entries of a group to watch; writes: the step
    // changes gradients, which may not share memory then; reader: the name of one of
    // tensor_readers().
    Guard(const py::list& groups, const py::dict& states, const py::list& params,
          const py::list& watched, const py::tuple& keys, bool writes, const std::string& reader);

    // None if the table may be stale in more than single parameters. Otherwise whether the caller
    // wrote to a group, the parameters with a gradient, the indices of gradients that need staging,
    // and those of parameters that have to be bound anew: they or their state are others, or a first
    // gradient is there. The gradients of all but these two are written to ``gradients`` as (address,
    // dtype), with dtype -1 for no gradient.
    py::object look(const py::list& groups, const py::dict& states, Addresses gradients);

    // A parameter was bound anew: takes it and its state for known.
    void update(size_t index, bool has_state, bool plain, const py::dict& states);

    // Reads the gradients of these, which were bound anew since `look`; the indices of those that
    // need staging, or None if gradients that the step writes need it or share memory.
    py::object read(const std::vector<size_t>& indices, Addresses gradients) const;

    // Takes the present values in the groups as known.
    void remember(const py::list& groups);

    // Takes these for the other tensors.
    void watch(const py::list& tensors);

  private:
    struct Param {
        py::object object;
        int64_t group;
        bool has_state, plain;
        Place place;
    };

    int64_t* rows_of(Addresses& gradients) const;
    bool params_are_those(const py::list& groups) const;
    bool groups_are_those(const py::list& groups) const;
    int64_t elements(const Param& param) const;
    bool gradients_share_memory(const int64_t* rows) const;
    // Writes the row of a gradient; false if it needs staging.
    bool read_gradient(const py::object& gradient, const Param& param, int64_t* row) const;
    bool is_plain_gradient(PyObject* gradient, const Param& param, int64_t* row) const;

    Places places;
    bool writes;
    std::vector<Param> params;  // no references to their memory: they may be swapped
    Memory watched;
    WatchedStates states;
    std::vector<py::object> keys, values;  // values: by group, then key
    py::object params_key, tensor_type;
};

}  // namespace lrfused

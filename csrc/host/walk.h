// The walk before a step: is everything still what the table was built from, and where are the
// gradients? Whatever it does not know it leaves to lrfused/engine.py, which knows everything.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>
#include <vector>

#include "host/dlpack.h"
#include "host/handle.h"

namespace lrfused {

namespace py = pybind11;

// Where a tensor lies, and how.
struct Place {
    bool known = false;
    void* data = nullptr;
    int32_t device_type = 0, device_id = 0;
    int dtype = -1;  // a Dtype; -1 for any other
    std::vector<int64_t> shape, strides;

    static Place of(const py::object& tensor);  // not known if DLPack cannot describe it
    bool is_of(const py::object& tensor) const;
    bool has_layout_of(const dlpack::Tensor& tensor) const;
};

class Walk {
  public:
    // params: (parameter, group, has state, plain: its memory is used as it is); watched: other
    // tensors whose addresses the table knows; keys: the entries of a group to be watched.
    Walk(const py::list& groups, const py::dict& states, const py::list& params,
         const py::list& watched, const py::tuple& keys);

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
    // By its handle where torch has such things, which is quicker; a parameter must stay free to
    // be swapped.
    struct Watched {
        py::object object;
        std::unique_ptr<Handle> handle;
        Place place;

        bool is_unchanged() const { return handle ? handle->is_unchanged() : place.is_of(object); }
    };
    using Items = std::vector<std::pair<py::object, py::object>>;

    bool params_are_those(const py::list& groups) const;
    bool states_are_those(const py::dict& states) const;
    bool groups_are_those(const py::list& groups) const;
    bool memory_is_the_same() const;
    bool is_plain_gradient(PyObject* gradient, const Param& param, int64_t* row) const;

    std::vector<Param> params;
    std::vector<Watched> watched;
    std::vector<py::object> keys, values;  // values: by group, then key
    py::object params_key, tensor_type;
    Items states;
    std::vector<Items> state_items;
};

// torch has the exchange interface: without it there is no Walk.
bool can_walk();

}  // namespace lrfused

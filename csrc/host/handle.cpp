#include "host/handle.h"

#include <algorithm>

namespace lrfused {

bool Handles::add(const pybind11::object& tensor) {
    stable::Handle handle = stable::make_handle(tensor);
    if (!handle) return false;
    TensorView view;
    if (!stable::read(handle, view)) {
        stable::release(handle);
        return false;
    }
    known.push_back({handle, view.data, view.type, static_cast<int32_t>(view.dimensions)});
    numbers.insert(numbers.end(), view.shape, view.shape + view.dimensions);
    numbers.insert(numbers.end(), view.strides, view.strides + view.dimensions);
    return true;
}

Handles::~Handles() {
    for (const Known& one : known) stable::release(one.tensor);
}

bool Handles::are_unchanged() const {
    const int64_t* expected = numbers.data();
    for (const Known& one : known) {
        TensorView now;
        if (!stable::read(one.tensor, now) || now.data != one.data || now.type != one.type ||
            now.dimensions != one.dimensions ||
            !std::equal(now.shape, now.shape + one.dimensions, expected) ||
            !std::equal(now.strides, now.strides + one.dimensions, expected + one.dimensions))
            return false;
        expected += 2 * one.dimensions;
    }
    return true;
}

}  // namespace lrfused

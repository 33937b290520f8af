#include "host/memory.h"

#include <algorithm>

namespace lrfused {

namespace py = pybind11;

// Where the numbers of a view stand: at `at` if there is room for them, else at the end.
static size_t keep(const TensorView& view, std::vector<int64_t>& numbers, size_t at, int64_t room) {
    if (room < view.dimensions) {
        at = numbers.size();
        numbers.resize(at + 2 * static_cast<size_t>(view.dimensions));
    }
    int64_t* end = std::copy(view.shape, view.shape + view.dimensions, numbers.data() + at);
    std::copy(view.strides, view.strides + view.dimensions, end);
    return at;
}

Place Places::of(const py::object& tensor, const Place& before) {
    TensorView view;
    if (!reader.read(tensor.ptr(), view)) return {false, {}, before.numbers, before.room};
    const size_t at = keep(view, numbers, before.numbers, before.room);
    view.shape = view.strides = nullptr;
    return {true, view, at, std::max(before.room, view.dimensions)};
}

bool Places::has_layout(const TensorView& view, const Place& place) const {
    const TensorView& then = place.view;
    const int64_t* strides = shape(place) + then.dimensions;
    return then.device_type == view.device_type && then.device_index == view.device_index &&
           then.dimensions == view.dimensions && std::equal(shape(place), strides, view.shape) &&
           std::equal(strides, strides + then.dimensions, view.strides);
}

bool Places::lies_at(const py::object& tensor, const Place& place) const {
    TensorView view;
    return place.known && reader.read(tensor.ptr(), view) && place.view.data == view.data &&
           place.view.type == view.type && has_layout(view, place);
}

Memory::~Memory() {
    for (const Known& one : known)
        if (one.handle) stable::release(one.handle);
}

Memory::Known Memory::read(const py::object& tensor, const Known& before) {
    Known one{};
    one.numbers = before.numbers;
    one.room = before.room;
    TensorView view;
    one.handle = stable::make_handle(maker, tensor);
    if (one.handle && !stable::read(one.handle, view)) {
        stable::release(one.handle);
        one.handle = nullptr;
    }
    if (!one.handle) return one;
    one.data = view.data;
    one.type = view.type;
    one.dimensions = static_cast<int16_t>(view.dimensions);
    one.numbers = keep(view, numbers, before.numbers, before.room);
    one.room = std::max(before.room, one.dimensions);
    return one;
}

void Memory::set(size_t index, const py::object& tensor) {
    if (index == known.size()) known.push_back({nullptr, nullptr, 0, 0, -1, 0});
    const Known one = read(tensor, known[index]);
    if (known[index].handle) stable::release(known[index].handle);
    known[index] = one;
    if (one.handle) {
        by_reader.erase(index);
        return;
    }
    auto& other = by_reader[index];
    other = {tensor, places.of(tensor, other.second)};
}

void Memory::clear(size_t index) {
    Known& one = known[index];
    if (one.handle) stable::release(one.handle);
    one = {nullptr, nullptr, 0, 0, one.room, one.numbers};
    by_reader.erase(index);
}

bool Memory::are_unchanged(size_t first, size_t count) const {
    const Known* one = known.data() + first;
    for (size_t i = 0; i < count; ++i, ++one) {
        const bool is_real = reinterpret_cast<uintptr_t>(one->data) > LARGEST_OFFSET;
        if (is_real ? !stable::is_as_before(one->handle, one->data, one->type, one->dimensions,
                                            numbers.data() + one->numbers)
                    : !is_unchanged(first + i))
            return false;
    }
    return true;
}

bool Memory::is_unchanged(size_t index) const {
    const Known& one = known[index];
    if (!one.handle) {
        const auto other = by_reader.find(index);
        return other == by_reader.end() || places.lies_at(other->second.first, other->second.second);
    }
    TensorView now;
    const int64_t *shape = numbers.data() + one.numbers, *strides = shape + one.dimensions;
    return stable::read(one.handle, now) && now.data == one.data && now.type == one.type &&
           now.dimensions == one.dimensions && std::equal(shape, strides, now.shape) &&
           std::equal(strides, strides + one.dimensions, now.strides);
}

}  // namespace lrfused

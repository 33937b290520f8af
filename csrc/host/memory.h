// Remembers where tensors lie, to check at every step, in some nanoseconds each, that they still do.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <map>
#include <vector>

#include "host/stable.h"
#include "host/tensor_reader.h"

namespace lrfused {

// A tensor's address and layout.
struct Place {
    bool known = false;
    TensorView view;     // its shape and strides pointers are not kept: they may change
    size_t numbers = 0;  // index of shape, then strides, in Places::numbers
    int64_t room = -1;   // for so many dimensions there; -1: none yet
};

// Places of tensors that are named at each question.
class Places {
  public:
    explicit Places(const TensorReader& reader_) : reader(reader_) {}

    // known = false if the reader fails. `before` is no longer used: its numbers may be overwritten.
    Place of(const pybind11::object& tensor, const Place& before = Place());
    bool lies_at(const pybind11::object& tensor, const Place& place) const;
    bool has_layout(const TensorView& view, const Place& place) const;
    const int64_t* shape(const Place& place) const { return numbers.data() + place.numbers; }

    const TensorReader reader;

  private:
    std::vector<int64_t> numbers;
};

// Tensors to which references are held; torch.utils.swap_tensors refuses such tensors.
class Memory {
  public:
    explicit Memory(Places& places_) : places(places_) {}
    ~Memory();
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;

    size_t size() const { return known.size(); }
    // Another tensor at this index, at most size().
    void set(size_t index, const pybind11::object& tensor);
    void clear(size_t index);
    // True if these have the address, dtype, shape and strides that they were set with, or were
    // cleared.
    bool are_unchanged(size_t first, size_t count) const;

  private:
    struct Known {
        stable::Handle handle;  // null: asked by the reader, or cleared
        void* data;
        int32_t type;
        int16_t dimensions, room;  // there is room for the numbers of so many; -1: none yet
        size_t numbers;            // index of shape, then strides
    };

    bool is_unchanged(size_t index) const;
    // Its handle is null where that does not work; the room is that of `before`, if it fits.
    Known read(const pybind11::object& tensor, const Known& before);

    // Contiguous, because thousands are checked with cold caches.
    std::vector<Known> known;
    std::vector<int64_t> numbers;
    std::map<size_t, std::pair<pybind11::object, Place>> by_reader;
    Places& places;
    const pybind11::object maker = stable::handle_maker();
};

}  // namespace lrfused

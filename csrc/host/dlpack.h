// The part of DLPack's C exchange interface that reads a tensor's address and layout without a
// Python call. Struct layout: DLPack 1.x, https://dmlc.github.io/dlpack/latest/c_api.html
#pragma once

#include <optional>

#include "host/tensor_reader.h"

namespace lrfused {
namespace dlpack {

enum TypeCode { FLOAT = 2, BFLOAT = 4 };

struct DataType {
    uint8_t code, bits;
    uint16_t lanes;
};

struct Tensor {
    void* data;
    int32_t device_type, device_id;
    int32_t dimensions;
    DataType dtype;
    int64_t* shape;
    int64_t* strides;  // in elements
    uint64_t byte_offset;
};

struct ExchangeApi {
    uint32_t major, minor;
    ExchangeApi* previous;
    int (*managed_allocator)(Tensor*, void**, void*, void (*)(void*, const char*, const char*));
    int (*managed_from_object)(void*, void**);
    int (*managed_to_object)(void*, void**);
    // Borrows the tensor; returns 0, or -1 with a Python exception set. May be null.
    int (*tensor_from_object)(void*, Tensor*);
    int (*current_stream)(int32_t, int32_t, void**);
};

constexpr uint32_t MAJOR = 1;

// A reader, if this torch has the interface.
std::optional<TensorReader> reader();

}  // namespace dlpack
}  // namespace lrfused

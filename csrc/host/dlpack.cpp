#include "host/dlpack.h"

#include "core/dtypes.h"
#include "host/stable.h"

namespace lrfused {
namespace dlpack {

namespace py = pybind11;

static const ExchangeApi* find_api() {
    py::object type = py::module_::import("torch").attr("Tensor");
    const char* attribute = "__dlpack_c_exchange_api__";
    if (!py::hasattr(type, attribute)) return nullptr;
    py::object capsule = type.attr(attribute);
    if (!PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api")) return nullptr;
    auto api = static_cast<const ExchangeApi*>(
        PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
    while (api && api->major > MAJOR) api = api->previous;
    return api && api->major == MAJOR && api->tensor_from_object ? api : nullptr;
}

static const ExchangeApi* api() {
    static const ExchangeApi* the_one = find_api();
    return the_one;
}

static int dtype_of(const DataType& type) {
    if (type.lanes != 1) return -1;
    if (type.code == BFLOAT) return type.bits == 16 ? BFLOAT16 : -1;
    if (type.code != FLOAT) return -1;
    return type.bits == 64 ? FLOAT64 : type.bits == 32 ? FLOAT32 : type.bits == 16 ? FLOAT16 : -1;
}

// An address that might be an offset is checked through the other interface.
static bool is_freed(PyObject* object) {
    static const bool can_tell = stable::reader().has_value();
    TensorView view;
    return !can_tell || !stable::read_object(object, view) || view.data == nullptr;
}

static bool read(PyObject* object, TensorView& view) {
    Tensor t;
    if (api()->tensor_from_object(object, &t) != 0) {
        PyErr_Clear();
        return false;
    }
    view.data = static_cast<char*>(t.data) + t.byte_offset;
    if (reinterpret_cast<uintptr_t>(view.data) <= LARGEST_OFFSET && is_freed(object))
        view.data = nullptr;
    view.device_type = t.device_type;
    view.device_index = t.device_id;
    view.type = t.dtype.code | t.dtype.bits << 8 | t.dtype.lanes << 16;
    view.dtype = dtype_of(t.dtype);
    view.dimensions = t.dimensions;
    view.shape = t.shape;
    view.strides = t.strides;
    return true;
}

std::optional<TensorReader> reader() {
    if (!api()) return std::nullopt;
    return TensorReader{"DLPack", read};
}

}  // namespace dlpack
}  // namespace lrfused

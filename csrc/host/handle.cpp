#include "host/handle.h"

#include <algorithm>
#include <string>

#if !defined(_WIN32)
#include <dlfcn.h>
#endif

namespace lrfused {

namespace py = pybind11;

// Each returns 0 if all went well.
struct TensorApi {
    int32_t (*data)(void*, void**);
    int32_t (*dtype)(void*, int32_t*);
    int32_t (*dimensions)(void*, int64_t*);
    int32_t (*shape)(void*, int64_t**);
    int32_t (*strides)(void*, int64_t**);
    int32_t (*release)(void*);
};

static void* find_library() {
#if defined(_WIN32)
    return nullptr;
#else
    std::string folder = py::module_::import("os").attr("path").attr("dirname")(
        py::module_::import("torch").attr("__file__")).cast<std::string>();
    for (const char* name : {"/lib/libtorch_cpu.so", "/lib/libtorch_cpu.dylib"})
        if (void* found = dlopen((folder + name).c_str(), RTLD_LAZY | RTLD_NOLOAD)) return found;
    return nullptr;
#endif
}

template <class Function>
static bool find(void* library, const char* name, Function& function) {
#if defined(_WIN32)
    return false;
#else
    function = reinterpret_cast<Function>(dlsym(library, name));
    return function != nullptr;
#endif
}

static const TensorApi* tensor_api() {
    static const TensorApi* the_one = []() -> const TensorApi* {
        void* library = find_library();
        static TensorApi api;
        bool complete = library && find(library, "aoti_torch_get_data_ptr", api.data) &&
                        find(library, "aoti_torch_get_dtype", api.dtype) &&
                        find(library, "aoti_torch_get_dim", api.dimensions) &&
                        find(library, "aoti_torch_get_sizes", api.shape) &&
                        find(library, "aoti_torch_get_strides", api.strides) &&
                        find(library, "aoti_torch_delete_tensor_object", api.release);
        return complete ? &api : nullptr;
    }();
    return the_one;
}

std::unique_ptr<Handle> Handle::of(const py::object& tensor) {
    py::object maker = py::module_::import("torch").attr("_C");
    for (const char* name : {"_aoti", "unsafe_alloc_void_ptr_from_tensor"}) {
        if (!py::hasattr(maker, name)) return nullptr;
        maker = maker.attr(name);
    }
    if (!tensor_api()) return nullptr;
    py::object capsule = maker(tensor);
    if (!PyCapsule_CheckExact(capsule.ptr())) return nullptr;
    void* pointer = PyCapsule_GetPointer(capsule.ptr(), PyCapsule_GetName(capsule.ptr()));
    if (!pointer) throw py::error_already_set();
    std::unique_ptr<Handle> handle(new Handle(pointer));
    Place now;
    if (!handle->read(now)) return nullptr;
    handle->data = now.data;
    handle->dtype = now.dtype;
    handle->shape.assign(now.shape, now.shape + now.dimensions);
    handle->strides.assign(now.strides, now.strides + now.dimensions);
    return handle;
}

Handle::~Handle() { tensor_api()->release(tensor); }

bool Handle::read(Place& place) const {
    const TensorApi& api = *tensor_api();
    return !api.data(tensor, &place.data) && !api.dtype(tensor, &place.dtype) &&
           !api.dimensions(tensor, &place.dimensions) && !api.shape(tensor, &place.shape) &&
           !api.strides(tensor, &place.strides);
}

bool Handle::is_unchanged() const {
    Place now;
    return read(now) && now.data == data && now.dtype == dtype &&
           now.dimensions == static_cast<int64_t>(shape.size()) &&
           std::equal(shape.begin(), shape.end(), now.shape) &&
           std::equal(strides.begin(), strides.end(), now.strides);
}

}  // namespace lrfused

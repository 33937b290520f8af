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

bool Handles::add(const py::object& tensor) {
    py::object maker = py::module_::import("torch").attr("_C");
    for (const char* name : {"_aoti", "unsafe_alloc_void_ptr_from_tensor"}) {
        if (!py::hasattr(maker, name)) return false;
        maker = maker.attr(name);
    }
    if (!tensor_api()) return false;
    py::object capsule = maker(tensor);
    if (!PyCapsule_CheckExact(capsule.ptr())) return false;
    void* handle = PyCapsule_GetPointer(capsule.ptr(), PyCapsule_GetName(capsule.ptr()));
    if (!handle) throw py::error_already_set();
    Place place;
    if (!read(handle, place)) {
        tensor_api()->release(handle);
        return false;
    }
    known.push_back({handle, place.data, place.dtype, static_cast<int32_t>(place.dimensions)});
    numbers.insert(numbers.end(), place.shape, place.shape + place.dimensions);
    numbers.insert(numbers.end(), place.strides, place.strides + place.dimensions);
    return true;
}

Handles::~Handles() {
    for (const Known& one : known) tensor_api()->release(one.tensor);
}

bool Handles::read(void* tensor, Place& place) {
    const TensorApi& api = *tensor_api();
    return !api.data(tensor, &place.data) && !api.dtype(tensor, &place.dtype) &&
           !api.dimensions(tensor, &place.dimensions) && !api.shape(tensor, &place.shape) &&
           !api.strides(tensor, &place.strides);
}

bool Handles::are_unchanged() const {
    const int64_t* expected = numbers.data();
    for (const Known& one : known) {
        Place now;
        if (!read(one.tensor, now) || now.data != one.data || now.dtype != one.dtype ||
            now.dimensions != one.dimensions ||
            !std::equal(now.shape, now.shape + one.dimensions, expected) ||
            !std::equal(now.strides, now.strides + one.dimensions, expected + one.dimensions))
            return false;
        expected += 2 * one.dimensions;
    }
    return true;
}

}  // namespace lrfused

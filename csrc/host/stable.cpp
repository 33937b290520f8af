#include "host/stable.h"

#include <algorithm>
#include <string>

#include "core/dtypes.h"

#if !defined(_WIN32)
#include <dlfcn.h>
#endif

namespace lrfused {
namespace stable {

namespace py = pybind11;

// The functions return 0 on success.
struct Api {
    int32_t (*data)(Handle, void**);
    int32_t (*storage)(Handle, int64_t*);
    int32_t (*dtype)(Handle, int32_t*);
    int32_t (*dimensions)(Handle, int64_t*);
    int32_t (*shape)(Handle, int64_t**);
    int32_t (*strides)(Handle, int64_t**);
    int32_t (*device_type)(Handle, int32_t*);
    int32_t (*device_index)(Handle, int32_t*);
    int32_t (*release)(Handle);
    int32_t dtypes[4];  // torch's numbers, by ours
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

// Calls a function of torch that returns a constant.
static bool ask(void* library, const char* name, int32_t& number) {
    int32_t (*function)();
    if (!find(library, name, function)) return false;
    number = function();
    return true;
}

static const Api* find_api() {
    static Api api;
    void* library = find_library();
    bool complete = library && find(library, "aoti_torch_get_data_ptr", api.data) &&
                    find(library, "aoti_torch_get_storage_size", api.storage) &&
                    find(library, "aoti_torch_get_dtype", api.dtype) &&
                    find(library, "aoti_torch_get_dim", api.dimensions) &&
                    find(library, "aoti_torch_get_sizes", api.shape) &&
                    find(library, "aoti_torch_get_strides", api.strides) &&
                    find(library, "aoti_torch_get_device_type", api.device_type) &&
                    find(library, "aoti_torch_get_device_index", api.device_index) &&
                    find(library, "aoti_torch_delete_tensor_object", api.release) &&
                    ask(library, "aoti_torch_dtype_float64", api.dtypes[FLOAT64]) &&
                    ask(library, "aoti_torch_dtype_float32", api.dtypes[FLOAT32]) &&
                    ask(library, "aoti_torch_dtype_bfloat16", api.dtypes[BFLOAT16]) &&
                    ask(library, "aoti_torch_dtype_float16", api.dtypes[FLOAT16]);
    return complete ? &api : nullptr;
}

static const Api* api() {
    static const Api* the_one = find_api();
    return the_one;
}

py::object handle_maker() {
    py::object maker = py::module_::import("torch").attr("_C");
    for (const char* name : {"_aoti", "unsafe_alloc_void_ptr_from_tensor"}) {
        if (!api() || !py::hasattr(maker, name)) return py::none();
        maker = maker.attr(name);
    }
    return maker;
}

Handle make_handle(const py::object& maker, const py::object& tensor) {
    if (maker.is_none()) return nullptr;
    py::object capsule = maker(tensor);
    if (!PyCapsule_CheckExact(capsule.ptr())) return nullptr;
    Handle handle = PyCapsule_GetPointer(capsule.ptr(), PyCapsule_GetName(capsule.ptr()));
    if (!handle) throw py::error_already_set();
    return handle;
}

void release(Handle handle) { api()->release(handle); }

bool read(Handle tensor, TensorView& view) {
    int64_t *shape, *strides, bytes;
    const Api& torch = *api();  // once: thousands are read in a step
    // Strides first: a tensor without strides has no address, or a meaningless one.
    if (torch.strides(tensor, &strides) || torch.shape(tensor, &shape) ||
        torch.data(tensor, &view.data) || torch.storage(tensor, &bytes) ||
        torch.dtype(tensor, &view.type) || torch.dimensions(tensor, &view.dimensions))
        return false;
    if (bytes == 0) view.data = nullptr;  // for freed storage torch returns the offset
    view.shape = shape;
    view.strides = strides;
    view.dtype = -1;
    for (int dtype : {FLOAT64, FLOAT32, BFLOAT16, FLOAT16})
        if (view.type == torch.dtypes[dtype]) view.dtype = dtype;
    return true;
}

// Asks for less than `read`: what has a real address has a storage, whose size need not be asked for
// (which counts a reference).
bool is_as_before(Handle tensor, const void* data, int32_t type, int64_t dimensions,
                  const int64_t* numbers) {
    int64_t *shape, *strides, dimensions_now;
    int32_t type_now;
    void* data_now;
    const Api& torch = *api();
    if (torch.strides(tensor, &strides) || torch.shape(tensor, &shape) ||
        torch.data(tensor, &data_now) || torch.dtype(tensor, &type_now) ||
        torch.dimensions(tensor, &dimensions_now))
        return false;
    return data_now == data && type_now == type && dimensions_now == dimensions &&
           std::equal(shape, shape + dimensions, numbers) &&
           std::equal(strides, strides + dimensions, numbers + dimensions);
}

// Attributes of Python tensors; lives as long as the process, like torch's types.
struct Attributes {
    py::module_ torch = py::module_::import("torch");
    py::object strided = torch.attr("strided");
    Getter layout{torch.attr("Tensor"), "layout"};
    Getter wrapped{torch.attr("Tensor"), "_cdata"};
};

static const Attributes& attributes() {
    static const Attributes* the_one = new Attributes();
    return *the_one;
}

// The C++ tensor behind a Python object.
static void* wrapped(PyObject* object) {
    PyObject* number = attributes().wrapped(object);
    void* found = number && PyLong_CheckExact(number) ? PyLong_AsVoidPtr(number) : nullptr;
    Py_XDECREF(number);
    if (!found) PyErr_Clear();
    return found;
}

static bool is_strided(PyObject* object) {
    PyObject* layout = attributes().layout(object);
    Py_XDECREF(layout);
    if (!layout) PyErr_Clear();
    return layout == attributes().strided.ptr();
}

// A handle is a pointer to a C++ tensor, so one can be built on the stack: it borrows from the
// object without a reference count. (The interface prints its errors, so other layouts are not
// passed to it.)
bool read_object(PyObject* object, TensorView& view) {
    void* pointer = is_strided(object) ? wrapped(object) : nullptr;
    return pointer && read(&pointer, view) && !api()->device_type(&pointer, &view.device_type) &&
           !api()->device_index(&pointer, &view.device_index);
}

// Verifies that assumption without dereferencing a guess: torch's own handle has the same pointer.
static bool handles_are_pointers() {
    py::object tensor = py::module_::import("torch").attr("empty")(2, py::arg("device") = "cpu");
    Handle handle = make_handle(handle_maker(), tensor);
    if (!handle) return false;
    bool same = *static_cast<void**>(handle) == wrapped(tensor.ptr());
    release(handle);
    return same;
}

std::optional<TensorReader> reader() {
    if (!api() || !handles_are_pointers()) return std::nullopt;
    return TensorReader{"stable C interface", read_object};
}

}  // namespace stable
}  // namespace lrfused

// The Python module lrfused._cuda: raw pointers in, launches out. It allocates nothing on the
// device and waits for nothing; it knows no torch.
#include "cuda/chips.h"
#include "cuda/step.h"
#include "host/read.h"

using namespace lrfused;

using Addresses = py::array_t<int64_t, py::array::c_style | py::array::forcecast>;

// Rows of (address, dtype; -1 without a gradient) as the words that the kernels read.
static std::vector<uint64_t> packed(const Addresses& rows) {
    std::vector<uint64_t> words(static_cast<size_t>(rows.size() / 2));
    for (size_t t = 0; t < words.size(); ++t) {
        const int64_t* row = rows.data() + 2 * t;
        if (row[1] < 0) continue;
        words[t] = static_cast<uint64_t>(row[0]) | static_cast<uint64_t>(row[1] + 1) << DTYPE_SHIFT;
    }
    return words;
}

static py::array_t<int64_t> packed_array(const Addresses& rows) {
    std::vector<uint64_t> words = packed(rows);
    const int64_t* first = reinterpret_cast<const int64_t*>(words.data());
    return py::array_t<int64_t>(static_cast<py::ssize_t>(words.size()), first);
}

static std::vector<int> architectures() {
    std::vector<int> numbers;
    for (const Chip& chip : chips(LRF_CUDA_CHIPS)) numbers.push_back(chip.number);
    return numbers;
}

// Switches of benchmarks, for the steps from here on; None leaves one as it is.
static void configure(std::optional<bool> dependent_launch, std::optional<bool> equal_carveout) {
    switches.dependent_launch = dependent_launch.value_or(switches.dependent_launch);
    switches.equal_carveout = equal_carveout.value_or(switches.equal_carveout);
}

static py::bytes place(Step& step, uint64_t table, uint64_t workspace) {
    std::vector<char> bytes = step.place(table, workspace);
    return {bytes.data(), bytes.size()};
}

// grad_scale and found_inf: a number, or the address of a float32 on the device (0: the number).
static void run(Step& step, const Addresses& gradients, uint64_t gradient_table, uint64_t values,
                uint64_t is_override, double grad_scale, uint64_t grad_scale_address, bool found_inf,
                uint64_t found_inf_address, int device, uint64_t stream, int phases) {
    Call call{};
    call.gradients = reinterpret_cast<const uint64_t*>(gradient_table);
    call.values = reinterpret_cast<const double*>(values);
    call.is_override = reinterpret_cast<const double*>(is_override);
    call.grad_scale = reinterpret_cast<const float*>(grad_scale_address);
    call.found_inf = reinterpret_cast<const float*>(found_inf_address);
    call.grad_scale_number = grad_scale;
    call.found_inf_number = found_inf;
    const auto words = call.gradients ? std::vector<uint64_t>() : packed(gradients);
    step.run(call, words, phases, device, reinterpret_cast<cudaStream_t>(stream));
}

PYBIND11_MODULE(_cuda, module) {
    module.doc() = "The CUDA backend of lrfused; it takes raw pointers and does not know torch.";
#ifdef LRF_CUDA_EMULATED
    module.attr("emulated") = true;
#else
    module.attr("emulated") = false;
#endif
    module.def("architectures", &architectures);
    module.def(
        "supports",
        [](int major, int minor, const std::string& list) { return supports(list, major, minor); },
        py::arg("major"), py::arg("minor"), py::arg("chips") = LRF_CUDA_CHIPS);
    module.def("configure", &configure, py::arg("dependent_launch") = py::none(),
               py::arg("equal_carveout") = py::none());
    module.def("parameter_capacity", &parameter_capacity);
    module.def("packed", &packed_array);
    py::class_<Step>(module, "Step", py::module_local())  // _cpu has one, too
        .def(py::init(&make_step<Step>))
        .def_property_readonly("table_size", &Step::table_size)
        .def_property_readonly("workspace_size", &Step::workspace_size)
        .def_property_readonly("decided_place", &Step::decided_place)
        .def_property_readonly("decided_end", &Step::decided_end)
        .def_property_readonly("overflows_place", &Step::overflows_place)
        .def("place", &place)
        .def("update", &update_step<Step>)
        .def("run", &run);
}

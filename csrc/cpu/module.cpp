// The Python module lrfused._cpu: raw pointers in, numbers out. It does not use torch.
#include <algorithm>
#include <stdexcept>

#include "cpu/instruction_set.h"
#include "cpu/step.h"
#include "cpu/threads.h"
#include "host/read.h"
#include "host/guard.h"
#include "host/pairs.h"

using namespace lrfused;

template <class T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;

// leading: the registers before the code's: the step, the constants and the inputs.
static double evaluate_one(const Code& code, std::vector<double> leading, int result,
                           const Array<double>& table) {
    int first = static_cast<int>(leading.size());
    std::vector<Instruction> list = instructions(code, first, {result});
    leading.resize(leading.size() + list.size());
    FloatingPointMode mode;
    return evaluate(list.data(), static_cast<int>(list.size()), result, leading.data(), first,
                    table.data());
}

// others: the constants and the inputs.
static py::array_t<double> evaluate_many(const Code& code, const std::vector<double>& others,
                                         int result, const Array<double>& table,
                                         const Array<double>& steps) {
    int first = static_cast<int>(others.size()) + 1;
    std::vector<Instruction> list = instructions(code, first, {result});
    std::vector<double> registers(static_cast<size_t>(first) + list.size());
    py::array_t<double> values(steps.size());
    FloatingPointMode mode;
    for (py::ssize_t i = 0; i < steps.size(); ++i) {
        registers[0] = steps.data()[i];
        std::copy(others.begin(), others.end(), registers.begin() + 1);
        values.mutable_data()[i] = evaluate(list.data(), static_cast<int>(list.size()), result,
                                            registers.data(), first, table.data());
    }
    return values;
}

static py::array_t<double> elementary(const std::string& name, const Array<double>& x,
                                      const Array<double>& y) {
    py::array_t<double> values(x.size());
    for (py::ssize_t i = 0; i < x.size(); ++i) {
        double a = x.data()[i], result;
        if (name == "exp") result = exponential(a);
        else if (name == "log") result = logarithm(a);
        else if (name == "cos") result = cosine(a);
        else if (name == "pow") result = power(a, y.data()[i]);
        else throw std::invalid_argument("name: must be exp, log, cos or pow, got " + name);
        values.mutable_data()[i] = result;
    }
    return values;
}

// Returns (error code, whether parameters were updated, the new step); fills next_values, of shape
// (groups, slots).
static py::tuple run(Step& step, const Array<int64_t>& gradients, const Array<double>& values,
                     const Array<bool>& is_override,
                     py::array_t<double, py::array::c_style> next_values, double grad_scale,
                     bool found_inf, int threads, const std::string& instruction_set) {
    Call call{gradients.data(), values.data(), is_override.data(), next_values.mutable_data(),
              grad_scale,       found_inf,     threads,      &kernels_for(instruction_set)};
    Result result;
    {
        py::gil_scoped_release release;
        result = step.run(call);
    }
    return py::make_tuple(result.error, result.proceeded, result.step);
}

static std::vector<std::string> names_of_readers() {
    std::vector<std::string> names;
    for (const TensorReader& reader : tensor_readers()) names.push_back(reader.name);
    return names;
}

PYBIND11_MODULE(_cpu, module) {
    module.doc() = "The C++ backend of lrfused; it takes raw pointers and does not know torch.";
    module.def("evaluate", &evaluate_one);
    module.def("evaluate_many", &evaluate_many);
    module.def("elementary", &elementary);
    module.def("instruction_sets", &instruction_sets);
    module.def("tensor_readers", &names_of_readers);
    module.def("odd_pairs", &odd_pairs);
    py::class_<Guard>(module, "Guard")
        .def(py::init<const py::list&, const py::dict&, const py::list&, const py::list&,
                      const py::tuple&, bool, const std::string&>())
        .def("look", &Guard::look)
        .def("update", &Guard::update)
        .def("read", &Guard::read)
        .def("watch", &Guard::watch)
        .def("remember", &Guard::remember);
    py::class_<Step>(module, "Step")
        .def(py::init(&make_step<Step>))
        .def("update", &update_step<Step>)
        .def("run", &run);
    std::vector<std::pair<std::string, int>> enumerations = {
        {"OP_COUNT", OP_COUNT},     {"FIELDS", FIELDS},
        {"RANGES", RANGES},         {"FIRST_OF_RULES", FIRST_OF_RULES},
        {"TABLE", TABLE},           {"LOSS_SCALE", LOSS_SCALE}};
    for (const auto& [name, value] : enumerations) module.attr(name.c_str()) = value;
}

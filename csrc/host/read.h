// Converts the Python description of a step (lrfused/backends/description.py) to C++.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "core/state.h"
#include "host/rows.h"
#include "rules/rules.h"

namespace lrfused {

namespace py = pybind11;
using Code = std::vector<std::tuple<int, int, int, int>>;

inline std::vector<Instruction> instructions(const Code& code, int first,
                                             const std::vector<int32_t>& results) {
    std::vector<Instruction> list;
    int defined = first;
    for (auto [op, a, b, c] : code) {
        if (op < 0 || op >= OP_COUNT) throw std::invalid_argument("code: unknown operation");
        for (int operand : {a, b, c})
            if (operand < 0 || operand >= defined)
                throw std::invalid_argument("code: an operand is not defined yet");
        list.push_back({op, a, b, c});
        ++defined;
    }
    for (int32_t result : results)
        if (result < 0 || result >= defined)
            throw std::invalid_argument("result: no such register");
    return list;
}

inline TypedPointer read_typed_pointer(const py::handle& pair) {
    auto [address, dtype] = pair.cast<std::pair<int64_t, int>>();
    return {reinterpret_cast<void*>(address), dtype};
}

using Numbers = py::array_t<int64_t, py::array::c_style | py::array::forcecast>;

// The columns of a tensor's row (lrfused/backends/rows.py); from OPERANDS on pairs, as of the rest.
enum Column { PARAM = 0, AVERAGE = 2, MASK = 4, COUNT = 5, UNIT = 6, GROUP = 7, OPERANDS = 8 };

inline TypedPointer typed_pointer_at(const int64_t* numbers) {
    return {reinterpret_cast<void*>(numbers[0]), static_cast<int>(numbers[1])};
}

inline std::vector<TensorRow> read_tensors(const Numbers& rows) {
    if (rows.ndim() != 2 || rows.shape(1) < OPERANDS ||
        rows.shape(1) > OPERANDS + 2 * MAX_OPERANDS || rows.shape(1) % 2)
        throw std::invalid_argument("tensors: rows of another length than the columns' number");
    std::vector<TensorRow> tensors(static_cast<size_t>(rows.shape(0)));
    const int64_t* row = rows.data();
    for (TensorRow& t : tensors) {
        t = TensorRow{};
        t.p = typed_pointer_at(row + PARAM);
        t.average = typed_pointer_at(row + AVERAGE);
        t.mask = reinterpret_cast<const uint32_t*>(row[MASK]);
        t.count = row[COUNT];
        t.unit = row[UNIT];
        t.group = static_cast<int>(row[GROUP]);
        for (py::ssize_t k = OPERANDS; k < rows.shape(1); k += 2)
            t.operands[(k - OPERANDS) / 2] = typed_pointer_at(row + k);
        row += rows.shape(1);
    }
    return tensors;
}

// Reads each table once: programs whose tables are one array share one copy.
class SamplesReader {
  public:
    Samples operator()(const py::handle& array) {
        Samples& samples = known[array.ptr()];
        if (!samples) {
            const auto values = array.cast<py::array_t<double, py::array::c_style | py::array::forcecast>>();
            samples = std::make_shared<const std::vector<double>>(values.data(),
                                                                  values.data() + values.size());
        }
        return samples;
    }

  private:
    std::map<PyObject*, Samples> known;
};

// `others`: the number of leading registers besides the step, the constants and the inputs.
inline ProgramRow read_program(const py::handle& row, SamplesReader& read_samples, int others = 0) {
    ProgramRow p;
    p.constants = row["constants"].cast<std::vector<double>>();
    p.samples = read_samples(row["samples"]);
    for (py::handle pair : row["inputs"]) {
        TypedPointer input = read_typed_pointer(pair);
        p.inputs.push_back({input.data, input.dtype});
    }
    p.results = row["results"].cast<std::vector<int32_t>>();
    p.leading = 1 + others + static_cast<int>(p.constants.size() + p.inputs.size());
    p.code = instructions(row["code"].cast<Code>(), p.leading, p.results);
    return p;
}

inline ProgramRow read_schedule(const py::handle& row, SamplesReader& read_samples) {
    ProgramRow program = read_program(row, read_samples);
    program.group = row["group"].cast<int>();
    program.slot = row["slot"].cast<int>();
    return program;
}

inline std::vector<ProgramRow> read_programs(const py::list& rows) {
    std::vector<ProgramRow> programs;
    SamplesReader read_samples;
    for (py::handle row : rows) programs.push_back(read_schedule(row, read_samples));
    return programs;
}

// groups: rows of different options, and for each group which of them it has.
inline std::vector<GroupRow> read_groups(const py::tuple& groups, const Options& options) {
    std::vector<GroupRow> kinds, all;
    SamplesReader read_samples;
    for (py::handle row : groups[0]) {
        GroupOptions g{};
        g.maximize = row["maximize"].cast<bool>();
        g.value_clip = row["value_clip"].cast<bool>();
        g.agc = row["agc"].cast<int>();
        g.operands = row["operands"].cast<int>();
        g.start_step = row["start_step"].cast<int64_t>();
        g.average_every = row["average_every"].cast<int64_t>();
        auto ranges = row["ranges"].cast<std::vector<int>>();
        if (ranges.size() != static_cast<size_t>(options.slots))
            throw std::invalid_argument("ranges: there has to be one of each hyperparameter");
        std::copy(ranges.begin(), ranges.end(), g.ranges);
        ProgramRow scalars =
            read_program(row["scalars"], read_samples, options.slots + options.carried);
        if (!scalars.samples->empty() || !scalars.inputs.empty())
            throw std::invalid_argument("scalars: no tables and no inputs");
        Rules::with(options.rule, [&](auto rule) {
            using Rule = decltype(rule);
            if (!Rule::Operands::contain(g.operands) ||
                scalars.results.size() != std::size(Rule::SCALARS) + options.carried)
                throw std::invalid_argument("operands, scalars: not those of the rule");
        });
        kinds.push_back({g, std::move(scalars)});
    }
    for (py::handle kind : groups[1]) all.push_back(kinds.at(kind.cast<size_t>()));
    return all;
}

inline LossScalePolicy read_policy(const py::object& row) {
    LossScalePolicy policy{};
    if (row.is_none()) return policy;
    policy.dynamic = row.attr("dynamic").cast<bool>();
    policy.growth_factor = row.attr("growth_factor").cast<double>();
    policy.backoff_factor = row.attr("backoff_factor").cast<double>();
    policy.minimum = row.attr("minimum").cast<double>();
    policy.maximum = row.attr("maximum").cast<double>();
    policy.growth_interval = row.attr("growth_interval").cast<int64_t>();
    policy.hysteresis = row.attr("hysteresis").cast<int64_t>();
    return policy;
}

inline Options read_options(const py::dict& row) {
    Options o{};
    o.rule = Rules::find(row["rule"].cast<std::string>(),
                         row["scalars"].cast<std::vector<std::string>>());
    o.slots = row["slots"].cast<int>();
    o.carried = row["carried"].cast<int>();
    if (o.slots > MAX_SLOTS || o.carried > MAX_CARRIED)
        throw std::invalid_argument("slots, carried: too many");
    o.measures = row["measures"].cast<bool>();
    o.clip_norm = row["clip_norm"].cast<bool>();
    o.infinity_norm = row["infinity_norm"].cast<bool>();
    o.checks_gradients = row["checks_gradients"].cast<bool>();
    o.advance_schedule_on_skip = row["advance_schedule_on_skip"].cast<bool>();
    o.raises_on_gradients = row["raises_on_gradients"].cast<bool>();
    o.write_grads = row["write_grads"].cast<bool>();
    o.zero_grads = row["zero_grads"].cast<bool>();
    o.accumulation_steps = row["accumulation_steps"].cast<double>();
    o.loss_scale = read_policy(row["loss_scale"]);
    return o;
}

inline State read_state(const py::dict& row) {
    auto address = [&](const char* name) { return row[name].cast<int64_t>(); };
    return {reinterpret_cast<int64_t*>(address("words")),
            reinterpret_cast<float*>(address("loss_scale")),
            reinterpret_cast<int64_t*>(address("counts")),
            reinterpret_cast<float*>(address("steps")),
            reinterpret_cast<double*>(address("carried"))};
}

// Creates the Step of either module.
template <class Step>
Step* make_step(const Numbers& tensors, const py::tuple& groups, const py::dict& options,
                const py::list& programs, const py::dict& state) {
    Options read = read_options(options);
    return new Step(read_tensors(tensors), read_groups(groups, read), read,
                    read_programs(programs), read_state(state));
}

// Gives a Step of either module other rows: of the tensors at these indices, and programs of
// schedules that took the place of others.
template <class Step>
void update_step(Step& step, const std::vector<size_t>& indices, const Numbers& tensors,
                 const py::list& programs) {
    step.update(indices, read_tensors(tensors), read_programs(programs));
}

}  // namespace lrfused

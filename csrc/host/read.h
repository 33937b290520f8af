// What Python hands over to a native module (lrfused/backends/cpu/step.py, description), as C++ has it.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "core/options.h"
#include "core/program.h"
#include "core/state.h"

namespace lrfused {

namespace py = pybind11;
using Code = std::vector<std::tuple<int, int, int, int>>;

inline std::vector<Instruction> instructions(const Code& code, int first, int result) {
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
    if (result < 0 || result >= defined) throw std::invalid_argument("result: no such register");
    return list;
}

inline std::vector<GroupOptions> read_groups(const py::list& rows) {
    std::vector<GroupOptions> groups;
    for (py::handle row : rows) {
        GroupOptions g{};
        g.amsgrad = row["amsgrad"].cast<bool>();
        g.maximize = row["maximize"].cast<bool>();
        g.value_clip = row["value_clip"].cast<bool>();
        g.decay_mode = row["decay_mode"].cast<int>();
        g.bias_correction = row["bias_correction"].cast<int>();
        g.agc = row["agc"].cast<int>();
        g.start_step = row["start_step"].cast<int64_t>();
        g.peak_lr = row["peak_lr"].cast<double>();
        groups.push_back(g);
    }
    return groups;
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
    o.measures = row["measures"].cast<bool>();
    o.clip_norm = row["clip_norm"].cast<bool>();
    o.infinity_norm = row["infinity_norm"].cast<bool>();
    o.checks_gradients = row["checks_gradients"].cast<bool>();
    o.advance_schedule_on_skip = row["advance_schedule_on_skip"].cast<bool>();
    o.raises_on_gradients = row["raises_on_gradients"].cast<bool>();
    o.write_grads = row["write_grads"].cast<bool>();
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
            reinterpret_cast<double*>(address("products"))};
}

}  // namespace lrfused

// Tensors and programs as Python describes them.
#pragma once

#include "cuda/step.h"
#include "host/read.h"

namespace lrfused {

inline Stretch stretch(const py::handle& pair) {
    auto [address, dtype] = pair.cast<std::pair<int64_t, int>>();
    return {reinterpret_cast<void*>(address), dtype};
}

inline std::vector<TensorRow> read_tensors(const py::list& rows) {
    std::vector<TensorRow> tensors;
    for (py::handle row : rows)
        tensors.push_back({stretch(row["p"]), stretch(row["m"]), stretch(row["v"]),
                           stretch(row["x"]), row["count"].cast<int64_t>(),
                           row["unit"].cast<int64_t>(), row["group"].cast<int>()});
    return tensors;
}

inline std::vector<ProgramRow> read_programs(const py::list& rows) {
    std::vector<ProgramRow> programs;
    for (py::handle row : rows) {
        ProgramRow p{};
        p.group = row["group"].cast<int>();
        p.slot = row["slot"].cast<int>();
        p.constants = row["constants"].cast<std::vector<double>>();
        p.samples = row["table"].cast<std::vector<double>>();
        for (py::handle pair : row["inputs"]) {
            auto [address, dtype] = pair.cast<std::pair<int64_t, int>>();
            p.inputs.insert(p.inputs.end(), {address, dtype});
        }
        p.result = row["result"].cast<int>();
        int first = static_cast<int>(1 + p.constants.size() + p.inputs.size() / 2);
        p.code = instructions(row["code"].cast<Code>(), first, p.result);
        programs.push_back(std::move(p));
    }
    return programs;
}

}  // namespace lrfused

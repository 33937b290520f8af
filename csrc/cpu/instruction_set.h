// The compiled kernels that this machine can run, and the choice among them.
#pragma once

#include <string>
#include <vector>

#include "cpu/kernels.h"

namespace lrfused {

std::vector<std::string> instruction_sets();              // best one last
const Kernels& kernels_for(const std::string& name);      // by name; "auto": the best

}  // namespace lrfused

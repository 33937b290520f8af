// Which compiled kernels this machine can run, and the choice among them.
#pragma once

#include <string>
#include <vector>

#include "cpu/kernels.h"

namespace lrfused {

std::vector<std::string> instruction_sets();              // best last
const Kernels& kernels_for(const std::string& name);      // "auto" is the best; else by name

}  // namespace lrfused

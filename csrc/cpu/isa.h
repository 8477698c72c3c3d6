// Which instruction set's kernels run.
#pragma once

#include <string>
#include <vector>

#include "cpu/kernels.h"

namespace fg {

// The kernels in use: the widest that this processor can run, unless set_isa chose others.
const Kernels& kernels();

// Every instruction set that was built in and that this processor can run, the widest last.
std::vector<std::string> isas();

// Choose by name; throws std::invalid_argument with the valid names.
void set_isa(const std::string& name);

}  // namespace fg

// Detects libraries that cannot work in this process, as far as their symbols show it.
#pragma once

#include <string>

#include "elf.hpp"

namespace bridge {

// The reason, in one line; empty if there is none.
std::string refusal(const Library& library);

}

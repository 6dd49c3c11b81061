// Why a library cannot work in this process, as far as its symbols show it.
#pragma once

#include <string>

#include "elf.hpp"

namespace bridge {

// One line; empty if nothing speaks against it.
std::string refusal(const Library& library);

}

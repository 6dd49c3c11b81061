// The dynamic symbols of a library, read from its file before any of its code runs.
#pragma once

#include <string>
#include <vector>

namespace bridge {

struct Symbol {
    std::string name;
    bool is_defined;
};

struct Library {
    std::vector<Symbol> symbols;
    // Names of the libraries that it was linked with.
    std::vector<std::string> needed;
};

// Throws std::runtime_error if this process cannot load the file as a library.
Library read_library(const std::string& path);

}

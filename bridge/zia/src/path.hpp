// Request targets that are rejected before any module sees them.
#pragma once

#include <string>

namespace bridge {

// Whether a path could leave the folder that a module serves, or end early as a C string: it has a `.` or `..` segment or a zero
// byte, possibly percent-encoded, once or twice.
bool is_treacherous(const std::string& uri);

// Whether it is a path with an optional query that has only visible ASCII characters.
bool is_target(const std::string& uri);

}

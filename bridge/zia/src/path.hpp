// Request targets that no module gets to see.
#pragma once

#include <string>

namespace bridge {

// Whether a path could lead out of a folder that a module serves, or end early in a C string: it has a `.` or `..` segment
// or a zero byte, also percent-encoded, once or twice.
bool is_treacherous(const std::string& uri);

// Whether it is a path with an optional query, of visible ASCII characters.
bool is_target(const std::string& uri);

}

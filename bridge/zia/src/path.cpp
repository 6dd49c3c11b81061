// Request targets that are rejected before any module sees them: public modules append the path to their folder unchecked.
#include "path.hpp"

#include <cctype>

namespace bridge {

namespace {

int digit(char byte) {
    return std::isdigit(static_cast<unsigned char>(byte)) ? byte - '0' : std::tolower(static_cast<unsigned char>(byte)) - 'a' + 10;
}

std::string decoded(const std::string& text) {
    std::string out;
    for (std::size_t at = 0; at < text.size(); ++at) {
        const bool is_escape = text[at] == '%' && at + 2 < text.size() &&
                               std::isxdigit(static_cast<unsigned char>(text[at + 1])) &&
                               std::isxdigit(static_cast<unsigned char>(text[at + 2]));
        if (!is_escape) {
            out += text[at];
            continue;
        }
        out += static_cast<char>(digit(text[at + 1]) * 16 + digit(text[at + 2]));
        at += 2;
    }
    return out;
}

bool has_dot_segment(const std::string& path) {
    std::size_t start = 0;
    while (start <= path.size()) {
        auto end = path.find_first_of("/\\", start);
        if (end == std::string::npos) end = path.size();
        const auto segment = path.substr(start, end - start);
        if (segment == "." || segment == "..") return true;
        start = end + 1;
    }
    return false;
}

}

bool is_treacherous(const std::string& uri) {
    auto path = uri.substr(0, uri.find_first_of("?#"));
    for (int round = 0; round < 3; ++round) {
        if (has_dot_segment(path) || path.find('\0') != std::string::npos) return true;
        path = decoded(path);
    }
    return false;
}

bool is_target(const std::string& uri) {
    if (uri.empty() || uri.front() != '/') return false;
    for (const char byte : uri) {
        if (byte <= ' ' || byte >= 0x7f) return false;
    }
    return true;
}

}

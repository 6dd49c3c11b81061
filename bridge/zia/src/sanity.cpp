// Checks requests and responses of modules: no value may end a header line or begin another message.
#include "sanity.hpp"

#include <algorithm>
#include <cctype>
#include <cstring>

#include "path.hpp"

namespace bridge {

namespace {

bool is_token(const std::string& text) {
    return !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char byte) {
        return std::isalnum(byte) || (byte != 0 && std::strchr("!#$%&'*+-.^_`|~", byte) != nullptr);
    });
}

// Whether it has no control characters. Bytes beyond ASCII are allowed.
bool is_value(const std::string& text) {
    return std::none_of(text.begin(), text.end(), [](unsigned char byte) { return (byte < ' ' && byte != '\t') || byte == 0x7f; });
}

void trim(std::string& text) {
    const char* const around = " \t\r\n";
    const auto start = text.find_first_not_of(around);
    text = start == std::string::npos ? "" : text.substr(start, text.find_last_not_of(around) - start + 1);
}

std::string header_fault(std::unordered_map<std::string, std::string>& headers) {
    for (auto& [name, value] : headers) {
        if (!is_token(name)) return "set a header with an invalid name: `" + name + "`";
        trim(value);
        if (!is_value(value)) return "set the header `" + name + "` to a value with control characters";
    }
    return {};
}

}

std::string fault(Zia::API::Request& request) {
    if (!is_token(request.method)) return "set an invalid method: `" + request.method + "`";
    if (!is_target(request.uri)) return "set a URI that is not a path: `" + request.uri + "`";
    return header_fault(request.headers);
}

std::string fault(Zia::API::Response& response) {
    if (response.status_code < 200 || response.status_code > 599) {
        return "set the status " + std::to_string(response.status_code) + ", expected 200 to 599";
    }
    trim(response.status_message);
    if (!is_value(response.status_message)) return "set a status message with control characters";
    return header_fault(response.headers);
}

}

// HTTP/1: what comes from clients and from the server's API, and how it is written. Parsing is Boost.Beast's.
#pragma once

#include <Zia/API.hpp>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "memory.hpp"

namespace bridge {

struct HeaderLine {
    std::string name;
    std::string value;
};
using HeaderLines = std::vector<HeaderLine>;
using HeaderMap = std::unordered_map<std::string, std::string>;

// What cannot be understood or is too much: the status of the response, and why.
class HttpError : public std::runtime_error {
public:
    HttpError(int status, const std::string& what) : std::runtime_error(what), status_(status) {}
    int status() const { return status_; }

private:
    int status_;
};

// Gives some bytes; none at the end.
using Source = std::function<std::string()>;

struct ParsedRequest {
    Zia::API::Request request;
    // As they came.
    HeaderLines lines;
    // Whether the client's connection may hold more than the request.
    bool has_rest = false;
};

struct ParsedResponse {
    Zia::API::Response response;
    HeaderLines lines;
    // An event stream: its bytes follow as they come, these first.
    bool is_stream = false;
    bool is_chunked = false;
    std::string start;
};

// Reads one request; `false` if the client closes before it. `expects` is called when it waits for `100 Continue`.
bool read_request(ParsedRequest& parsed, const Source& source, Lease& memory, std::size_t body_bytes_max,
                  const std::function<void()>& expects);

// Reads the response to a request with that method.
ParsedResponse read_response(const Source& source, Lease& memory, const std::string& method);

// The lines that stand for a map that modules may have changed: what they left alone is as it came.
HeaderLines merged(const HeaderLines& lines, const HeaderMap& before, const HeaderMap& after);

// The last of each name, in title case.
HeaderMap map_of(const HeaderLines& lines);

std::string write_request(const Zia::API::Request& request, const HeaderLines& lines);

// `is_head`: without the body.
std::vector<char> write_response(const Zia::API::Response& response, const HeaderLines& lines, bool is_head);

// The head of an event stream.
std::vector<char> write_stream_head(const Zia::API::Response& response, const HeaderLines& lines, bool is_chunked);

}

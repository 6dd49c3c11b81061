// HTTP/1 with clients and with the server's API: reading, with the parser of Boost.Beast, and writing.
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

// A message that is invalid or too large: the status of the response, and the reason.
class HttpError : public std::runtime_error {
public:
    HttpError(int status, const std::string& what) : std::runtime_error(what), status_(status) {}
    int status() const { return status_; }

private:
    int status_;
};

// Returns some bytes; empty at the end.
using Source = std::function<std::string()>;

struct ParsedRequest {
    Zia::API::Request request;
    // As received.
    HeaderLines lines;
    // Whether the client has sent more than the request.
    bool has_rest = false;
};

struct ParsedResponse {
    Zia::API::Response response;
    HeaderLines lines;
    // Whether it is an event stream, whose data is sent as it arrives. `start` is the first part of it.
    bool is_stream = false;
    bool is_chunked = false;
    std::string start;
};

// Reads one request; `false` if the client closes the connection first. Calls `expects` if the client waits for `100 Continue`.
bool read_request(ParsedRequest& parsed, const Source& source, Lease& memory, std::size_t body_bytes_max,
                  const std::function<void()>& expects);

// Reads the response to a request with this method.
ParsedResponse read_response(const Source& source, Lease& memory, const std::string& method);

// Converts headers that modules may have changed back to lines. Unchanged headers keep their original lines.
HeaderLines merged(const HeaderLines& lines, const HeaderMap& before, const HeaderMap& after);

// The last value of each name; names are in title case.
HeaderMap map_of(const HeaderLines& lines);

std::string write_request(const Zia::API::Request& request, const HeaderLines& lines);

// `is_head`: omits the body.
std::vector<char> write_response(const Zia::API::Response& response, const HeaderLines& lines, bool is_head);

// Writes the head of an event stream.
std::vector<char> write_stream_head(const Zia::API::Response& response, const HeaderLines& lines, bool is_chunked);

}

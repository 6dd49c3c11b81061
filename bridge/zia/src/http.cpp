// HTTP/1: parsing with Boost.Beast, and writing.
#include "http.hpp"

#include <algorithm>
#include <boost/beast/http.hpp>
#include <cctype>
#include <set>

#include "path.hpp"

namespace bridge {

namespace http = boost::beast::http;
using Body = http::vector_body<char>;

namespace {

// Maximum size of a head, in bytes and in lines.
constexpr std::uint32_t head_bytes_max = 64 * 1024;
constexpr std::size_t lines_max = 100;

// Maximum size of the lines around a chunk. Together with one read, they stay below the 64 KiB beyond which Beast throws.
constexpr std::size_t chunk_lines_bytes_max = 32 * 1024;

// Maximum size of a response; the memory budget is usually exhausted earlier.
constexpr std::uint64_t response_bytes_max = std::uint64_t(1) << 30;

std::string lower(std::string text) {
    for (char& byte : text) byte = static_cast<char>(std::tolower(static_cast<unsigned char>(byte)));
    return text;
}

std::string title(const std::string& name) {
    auto text = lower(name);
    bool is_first = true;
    for (char& byte : text) {
        if (is_first) byte = static_cast<char>(std::toupper(static_cast<unsigned char>(byte)));
        is_first = byte == '-';
    }
    return text;
}

// Headers that apply to one connection only, or that are always rewritten.
bool is_of_connection(const std::string& name) {
    static const std::set<std::string> names = {
        "connection", "content-length", "expect",  "keep-alive", "proxy-connection",
        "te",         "trailer",        "trailers", "transfer-encoding", "upgrade"};
    return names.count(lower(name)) != 0;
}

template <class Message>
HeaderLines lines_of(const Message& message) {
    HeaderLines lines;
    for (const auto& line : message) lines.push_back({std::string(line.name_string()), std::string(line.value())});
    return lines;
}

// Feeds a parser from a source, in two parts: the head, then the body.
template <class Parser>
class Feed {
public:
    Feed(Parser& parser, const Source& source) : parser_(parser), source_(source) { parser.eager(false); }

    // `false`: the source ended before the first byte.
    bool head() {
        while (!parser_.is_header_done()) {
            if (!step() && !has_any_) return false;
        }
        return true;
    }

    // Calls `grown` with the current size of the body.
    template <class F>
    void body(F grown) {
        parser_.eager(true);
        while (!parser_.is_done()) {
            step();
            grown(parser_.get().body().size());
        }
    }

    std::string& rest() { return rest_; }

private:
    // `false`: the source has ended.
    bool step() {
        boost::system::error_code error = http::error::need_more;
        if (!rest_.empty()) {
            const auto used = parser_.put(boost::asio::buffer(rest_), error);
            rest_.erase(0, used);
        }
        if (!error) return true;
        if (error != http::error::need_more) refuse(error);
        // Beast limits heads, but neither the line before a chunk nor the lines after the last one.
        if (parser_.is_header_done() && rest_.size() > chunk_lines_bytes_max) {
            throw HttpError(400, "the lines around a chunk of the body have more than 32 KiB");
        }
        auto more = source_();
        if (more.empty()) {
            if (!has_any_) return false;
            boost::system::error_code ended;
            parser_.put_eof(ended);
            if (ended) refuse(ended);
            return true;
        }
        has_any_ = true;
        rest_ += more;
        return true;
    }

    [[noreturn]] static void refuse(const boost::system::error_code& error) {
        if (error == http::error::body_limit || error == http::error::buffer_overflow) {
            throw HttpError(413, "the body is larger than this server accepts");
        }
        if (error == http::error::header_limit) throw HttpError(431, "the head has more than 64 KiB");
        throw HttpError(400, "this is not an HTTP/1 message: " + error.message());
    }

    Parser& parser_;
    const Source& source_;
    std::string rest_;
    bool has_any_ = false;
};

// A body may exist twice in memory: in the parser and in the module's object.
constexpr std::size_t copies = 2;

// Reserves memory in steps while a body grows.
class BodyMemory {
public:
    explicit BodyMemory(Lease& lease) : lease_(lease) {}

    void reserve(std::size_t bytes) {
        if (bytes <= held_) return;
        const std::size_t more = std::max(bytes - held_, step);
        if (!lease_.grow(more * copies)) throw HttpError(503, "the memory for requests is full");
        held_ += more;
    }

private:
    static constexpr std::size_t step = 64 * 1024;
    Lease& lease_;
    std::size_t held_ = 0;
};

// Replaces an absolute target with its path, and `Host` with its host.
void to_path(std::string& uri, HeaderLines& lines) {
    const auto scheme = uri.find("://");
    if (uri.empty() || uri.front() == '/' || scheme == std::string::npos || scheme > 5) return;
    const auto end = std::min(uri.find_first_of("/?#", scheme + 3), uri.size());
    const auto host = uri.substr(scheme + 3, end - scheme - 3);
    uri = end < uri.size() && uri[end] == '/' ? uri.substr(end) : "/" + uri.substr(end);
    lines.erase(std::remove_if(lines.begin(), lines.end(), [](const HeaderLine& line) { return lower(line.name) == "host"; }),
                lines.end());
    lines.push_back({"Host", host});
}

void append(std::string& out, const HeaderLines& lines) {
    for (const auto& line : lines) {
        if (!is_of_connection(line.name)) out += line.name + ": " + line.value + "\r\n";
    }
}

std::string status_line(const Zia::API::Response& response) {
    auto message = response.status_message;
    const auto known = http::int_to_status(response.status_code);
    if (message.empty() && known != http::status::unknown) message = std::string(http::obsolete_reason(known));
    return "HTTP/1.1 " + std::to_string(response.status_code) + " " + message + "\r\n";
}

// Some modules read the body as a C string, so a zero byte follows it in memory.
std::vector<char> with_zero_behind(std::vector<char> body) {
    body.push_back('\0');
    body.pop_back();
    return body;
}

}

bool read_request(ParsedRequest& parsed, const Source& source, Lease& memory, std::size_t body_bytes_max,
                  const std::function<void()>& expects) {
    http::request_parser<Body> parser;
    parser.header_limit(head_bytes_max);
    parser.body_limit(body_bytes_max);
    Feed<http::request_parser<Body>> feed(parser, source);
    if (!feed.head()) return false;
    const auto& head = parser.get();
    auto& request = parsed.request;
    request.method = std::string(head.method_string());
    request.uri = std::string(head.target());
    request.protocol = head.version() == 10 ? "HTTP/1.0" : "HTTP/1.1";
    parsed.lines = lines_of(head);
    if (parsed.lines.size() > lines_max) throw HttpError(431, "the head has more than 100 lines");
    to_path(request.uri, parsed.lines);
    if (!is_target(request.uri)) throw HttpError(400, "the target of the request is not a path of ASCII characters");
    if (is_treacherous(request.uri)) throw HttpError(400, "the path has a `.` or `..` segment, or a zero byte");
    BodyMemory body(memory);
    body.reserve(static_cast<std::size_t>(parser.content_length().value_or(0)));
    if (!parser.is_done()) {
        if (lower(std::string(head[http::field::expect])) == "100-continue") expects();
        feed.body([&](std::size_t size) { body.reserve(size); });
    }
    parsed.has_rest = !feed.rest().empty();
    request.body = with_zero_behind(std::move(parser.get().body()));
    if (parser.chunked()) {
        auto& lines = parsed.lines;
        for (const auto& line : lines) {
            const bool is_coding = lower(line.name) == "transfer-encoding";
            if (is_coding && lower(line.value) != "chunked") throw HttpError(501, "the transfer coding is not `chunked`");
        }
        lines.push_back({"Content-Length", std::to_string(request.body.size())});
    }
    request.headers = map_of(parsed.lines);
    if (parser.chunked()) request.headers.erase("Transfer-Encoding");
    return true;
}

ParsedResponse read_response(const Source& source, Lease& memory, const std::string& method) {
    http::response_parser<Body> parser;
    parser.header_limit(head_bytes_max);
    parser.body_limit(response_bytes_max);
    parser.skip(method == "HEAD");
    Feed<http::response_parser<Body>> feed(parser, source);
    if (!feed.head()) throw HttpError(502, "the server closed the connection without a response");
    const auto& head = parser.get();
    ParsedResponse parsed;
    auto& response = parsed.response;
    response.protocol = "HTTP/1.1";
    response.status_code = static_cast<unsigned short>(head.result_int());
    response.status_message = std::string(head.reason());
    parsed.lines = lines_of(head);
    response.headers = map_of(parsed.lines);
    parsed.is_chunked = parser.chunked();
    parsed.is_stream = head[http::field::content_type].starts_with("text/event-stream") && method != "HEAD";
    if (parsed.is_stream) {
        parsed.start = std::move(feed.rest());
        return parsed;
    }
    BodyMemory body(memory);
    if (!parser.is_done()) {
        body.reserve(static_cast<std::size_t>(parser.content_length().value_or(0)));
        feed.body([&](std::size_t size) { body.reserve(size); });
    }
    response.body = with_zero_behind(std::move(parser.get().body()));
    return parsed;
}

HeaderMap map_of(const HeaderLines& lines) {
    HeaderMap map;
    for (const auto& line : lines) map[title(line.name)] = line.value;
    return map;
}

HeaderLines merged(const HeaderLines& lines, const HeaderMap& before, const HeaderMap& after) {
    HeaderLines added;
    std::set<std::string> changed;
    for (const auto& [name, value] : after) {
        const auto old = before.find(name);
        if (old != before.end() && old->second == value) continue;
        changed.insert(lower(name));
        added.push_back({name, value});
    }
    HeaderLines all;
    for (const auto& line : lines) {
        // In a module's own response, the module chooses the case of names.
        const bool is_left = after.count(line.name) != 0 || after.count(title(line.name)) != 0;
        if (is_left && changed.count(lower(line.name)) == 0) all.push_back(line);
    }
    all.insert(all.end(), added.begin(), added.end());
    return all;
}

std::string write_request(const Zia::API::Request& request, const HeaderLines& lines) {
    // The version shows the server whether the client supports chunks.
    const auto version = request.protocol == "HTTP/1.0" ? " HTTP/1.0\r\n" : " HTTP/1.1\r\n";
    std::string out = request.method + " " + request.uri + version;
    append(out, lines);
    const bool has_length = request.headers.count("Content-Length") != 0;
    if (has_length || !request.body.empty()) out += "Content-Length: " + std::to_string(request.body.size()) + "\r\n";
    out += "Connection: close\r\n\r\n";
    out.append(request.body.data(), request.body.size());
    return out;
}

std::vector<char> write_response(const Zia::API::Response& response, const HeaderLines& lines, bool is_head) {
    std::string head = status_line(response);
    append(head, lines);
    const auto status = response.status_code;
    if (status != 204 && status != 304) {
        auto length = std::to_string(response.body.size());
        // The response to HEAD may have the length of the response to GET.
        const auto said = response.headers.find("Content-Length");
        if (is_head && response.body.empty() && said != response.headers.end()) length = said->second;
        head += "Content-Length: " + length + "\r\n";
    }
    head += "Connection: close\r\n\r\n";
    std::vector<char> out(head.begin(), head.end());
    if (!is_head && status != 204 && status != 304) out.insert(out.end(), response.body.begin(), response.body.end());
    return out;
}

std::vector<char> write_stream_head(const Zia::API::Response& response, const HeaderLines& lines, bool is_chunked) {
    std::string head = status_line(response);
    append(head, lines);
    if (is_chunked) head += "Transfer-Encoding: chunked\r\n";
    head += "Connection: close\r\n\r\n";
    return std::vector<char>(head.begin(), head.end());
}

}

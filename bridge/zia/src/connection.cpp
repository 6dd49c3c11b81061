// One connection: passes the request through the modules and then to the server, and the response back.
#include "connection.hpp"

#include <poll.h>
#include <sys/socket.h>

#include <boost/beast/http/status.hpp>
#include <cerrno>

#include "sanity.hpp"

namespace bridge {

namespace {

using Zia::API::RequestHandler;
using Zia::API::Response;
using Zia::API::HookResult::Declined;
using Zia::API::HookResult::Ok;

Response fresh(int status) {
    Response response{};
    response.protocol = "HTTP/1.1";
    response.status_code = static_cast<unsigned short>(status);
    return response;
}

// The HTTP status for a result that is an error.
int status_of(Zia::API::HookResultType result) { return result >= 400 && result <= 599 ? result : failed_hook; }

// The error page if no module provides one.
Response default_page(int status, const std::string& detail) {
    auto response = fresh(status);
    const std::string title(boost::beast::http::obsolete_reason(boost::beast::http::int_to_status(static_cast<unsigned>(status))));
    const auto text = "{\"type\":\"about:blank\",\"title\":\"" + title + "\",\"status\":" + std::to_string(status) +
                      (detail.empty() ? "" : ",\"detail\":\"" + detail + "\"") + "}";
    response.body.assign(text.begin(), text.end());
    response.headers["Content-Type"] = "application/problem+json";
    response.headers["X-Content-Type-Options"] = "nosniff";
    if (status == 503) response.headers["Retry-After"] = "1";
    return response;
}

HeaderLines lines_of(const HeaderMap& headers) {
    HeaderLines lines;
    for (const auto& [name, value] : headers) lines.push_back({name, value});
    return lines;
}

std::vector<char> written_page(int status, const std::string& detail) {
    const auto page = default_page(status, detail);
    return write_response(page, lines_of(page.headers), false);
}

}

Connection::Connection(Service& service, Descriptor client, Descriptor api, Zia::API::Connection info, bool is_secure)
    : service_(service), api_(std::move(api)), is_secure_(is_secure), handlers_(service.modules, *this),
      wire_(std::move(client), std::move(info), handlers_, *this), memory_(service.memory) {}

void Connection::run() {
    if (handlers_.make()) {
        try {
            wire_.start();
            serve();
        } catch (const ConnectionOver&) {
        }
        try {
            wire_.end();
        } catch (const ConnectionOver&) {
        }
    } else {
        wire_.send_plainly(farewell());
        has_rest_ = true;
    }
    handlers_.drop();
    if (has_rest_) wire_.linger();
}

void Connection::serve() {
    ParsedRequest parsed;
    try {
        const auto expects = [&] {
            const std::string text = "HTTP/1.1 100 Continue\r\n\r\n";
            wire_.write({text.begin(), text.end()});
        };
        if (!read_request(parsed, [&] { return wire_.read(); }, memory_, service_.body_bytes_max, expects)) return;
    } catch (const HttpError& error) {
        has_rest_ = true;
        wire_.write(written_page(error.status(), one_line(error.what())));
        return;
    }
    has_rest_ = parsed.has_rest;
    parsed.request.secure = is_secure_;
    const auto method = parsed.request.method;
    send(answer(parsed), method);
}

Connection::Answer Connection::answer(ParsedRequest& parsed) {
    // A required module, which may protect something, is deactivated.
    if (service_.modules.is_closed) {
        auto page = default_page(503, "a module of the server is deactivated");
        auto lines = lines_of(page.headers);
        return {std::move(page), std::move(lines)};
    }
    auto answer = ask_modules(parsed);
    const auto before = answer.response.headers;
    const auto result = handlers_.ask_request(
        "onResponse", [&](RequestHandler& handler) { return handler.onResponse(wire_.info(), answer.response); },
        [&] { return fault(answer.response); });
    if (result != Declined && result != Ok) return error_page(status_of(result));
    answer.lines = merged(answer.lines, before, answer.response.headers);
    return answer;
}

Connection::Answer Connection::ask_modules(ParsedRequest& parsed) {
    auto& request = parsed.request;
    const auto before = request.headers;
    auto result = handlers_.ask_request(
        "onBeforeRequest", [&](RequestHandler& handler) { return handler.onBeforeRequest(wire_.info(), request); },
        [&] { return fault(request); });
    if (result != Declined && result != Ok) return error_page(status_of(result));
    Response response;
    Zia::API::HookResultType asked = Declined;
    result = handlers_.ask_request(
        "onRequest",
        [&](RequestHandler& handler) {
            // Fresh for each module, because some modules change it and then decline.
            response = fresh(200);
            return asked = handler.onRequest(wire_.info(), request, response);
        },
        [&] { return asked == Ok ? fault(response) : std::string(); });
    if (result == Declined) return ask_server(parsed, before);
    if (result != Ok) return error_page(status_of(result));
    auto lines = lines_of(response.headers);
    return {std::move(response), std::move(lines)};
}

Connection::Answer Connection::ask_server(const ParsedRequest& parsed, const HeaderMap& before) {
    const auto& request = parsed.request;
    const auto bytes = write_request(request, merged(parsed.lines, before, request.headers));
    for (std::size_t sent = 0; sent < bytes.size();) {
        const auto size = ::send(api_.number(), bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
        if (size < 0 && errno == EINTR) continue;
        // The server may have responded before it has read everything.
        if (size <= 0) break;
        sent += static_cast<std::size_t>(size);
    }
    try {
        auto server = read_response([&] { return receive(); }, memory_, request.method);
        return {std::move(server.response), std::move(server.lines), server.is_stream, server.is_chunked,
                std::move(server.start)};
    } catch (const HttpError& error) {
        return error_page(error.status() == 503 ? 503 : 502);
    }
}

Connection::Answer Connection::error_page(int status) {
    Response response;
    Zia::API::HookResultType asked = Declined;
    const auto result = handlers_.ask_request(
        "onRequestError",
        [&](RequestHandler& handler) {
            response = fresh(status);
            return asked = handler.onRequestError(wire_.info(), status, response);
        },
        [&] { return asked == Ok ? fault(response) : std::string(); });
    if (result != Ok) response = default_page(status, "");
    auto lines = lines_of(response.headers);
    return {std::move(response), std::move(lines)};
}

void Connection::send(Answer answer, const std::string& method) {
    // A module may have replaced the stream with a body.
    if (answer.is_stream && answer.response.body.empty()) return send_stream(std::move(answer));
    wire_.write(write_response(answer.response, answer.lines, method == "HEAD"));
}

void Connection::send_stream(Answer answer) {
    wire_.write(write_stream_head(answer.response, answer.lines, answer.is_chunked));
    auto bytes = answer.start.empty() ? receive() : std::move(answer.start);
    while (!bytes.empty()) {
        wire_.write({bytes.begin(), bytes.end()});
        bytes = receive();
    }
}

std::string Connection::receive() {
    pollfd waits[] = {{api_.number(), POLLIN, 0}, {wire_.watched(), 0, 0}};
    while (::poll(waits, 2, -1) < 0) {
    }
    if (waits[0].revents == 0) throw ConnectionOver{};
    char buffer[16 * 1024];
    ssize_t size;
    do {
        size = ::recv(api_.number(), buffer, sizeof buffer, 0);
    } while (size < 0 && errno == EINTR);
    return std::string(buffer, size < 0 ? 0 : static_cast<std::size_t>(size));
}

// Empty for TLS: the client could not read it.
std::string Connection::farewell() const {
    if (is_secure_) return {};
    const auto page = written_page(failed_hook, "");
    return {page.begin(), page.end()};
}

void Connection::interrupt(bool fails) {
    if (fails) wire_.send_plainly(farewell());
    wire_.interrupt();
}

void Connection::abandon() { ::shutdown(api_.number(), SHUT_RDWR); }

}

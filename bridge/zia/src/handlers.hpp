// The request handlers of one connection: one per module, called in order.
#pragma once

#include <Zia/API.hpp>
#include <string>
#include <vector>

#include "call.hpp"
#include "exceptions.hpp"
#include "module.hpp"

namespace bridge {

// Thrown when the connection is over: its peer has disconnected or is late, or a module is late.
struct ConnectionOver {};

// The result of a hook that threw an exception, or whose output cannot be sent.
constexpr Zia::API::HookResultType failed_hook = 500;

class Handlers {
public:
    Handlers(Modules& modules, Interruptible& connection) : modules_(modules), connection_(connection) {}

    // Creates the handlers. `false`: a module failed.
    bool make();

    // Destroys the handlers.
    void drop();

    // Calls a connection hook, which may take `time`.
    template <class Hook>
    Zia::API::HookResultType ask_connection(const char* name, Clock::duration time, Hook hook) {
        return ask(name, Call::Waits::ForPeer, &time, hook, [] { return std::string(); });
    }

    // Calls a request hook. `check` returns, in one line, what is wrong with the module's output; empty: nothing.
    template <class Hook, class Check>
    Zia::API::HookResultType ask_request(const char* name, Hook hook, Check check) {
        return ask(name, Call::Waits::No, nullptr, hook, check);
    }

private:
    struct Entry {
        Module* module;
        Zia::API::RequestHandler::pointer handler;
    };

    // Calls a hook of each handler; returns the first result other than `Declined`.
    template <class Hook, class Check>
    Zia::API::HookResultType ask(const char* name, Call::Waits waits, const Clock::duration* time, Hook hook, Check check) {
        for (const auto& entry : entries_) {
            if (!entry.module->is_active()) continue;
            const auto result = call(entry, name, waits, time, hook, check);
            if (result != Zia::API::HookResult::Declined) return result;
        }
        return Zia::API::HookResult::Declined;
    }

    template <class Hook, class Check>
    Zia::API::HookResultType call(const Entry& entry, const char* name, Call::Waits waits, const Clock::duration* time, Hook hook,
                                  Check check) {
        const auto& settings = entry.module->settings();
        const auto fail = [&](const std::string& what) {
            report_failure(settings.number, std::string(name) + " " + what);
            return failed_hook;
        };
        Zia::API::HookResultType result = failed_hook;
        bool is_late = false;
        {
            const Call call(&connection_, settings.number, name, waits, time == nullptr ? settings.time : *time);
            guarded([&] { result = hook(*entry.handler); }, fail);
            is_late = call.is_late();
        }
        if (is_late) throw ConnectionOver{};
        const auto reason = result == failed_hook ? std::string() : check();
        return reason.empty() ? result : fail(reason);
    }

    Modules& modules_;
    Interruptible& connection_;
    std::vector<Entry> entries_;
};

}

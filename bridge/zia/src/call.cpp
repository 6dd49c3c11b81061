// Deadlines of calls. One thread enforces all of them.
#include "call.hpp"

#include <unistd.h>

#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>

#include "control.hpp"

namespace bridge {

namespace {

// Time from the shutdown of a socket until the calls that wait for it must have ended.
constexpr auto grace = std::chrono::seconds(5);

// Each abandoned call occupies a thread, the memory of its connection, and possibly a core.
constexpr std::size_t abandoned_max = 32;

// Maximum length of a module's text in a message, in bytes.
constexpr std::size_t text_bytes_max = 1000;

thread_local const Call* running_call = nullptr;

std::string seconds(Clock::duration time) {
    const auto milliseconds = std::chrono::duration_cast<std::chrono::milliseconds>(time).count();
    return milliseconds % 1000 == 0 ? std::to_string(milliseconds / 1000) + " s" : std::to_string(milliseconds) + " ms";
}

[[noreturn]] void give_up() { ::_exit(EXIT_FAILURE); }

}

// All calls by their deadlines.
struct Watchdog {
    std::mutex mutex;
    std::condition_variable changed;
    std::multimap<Clock::time_point, Call*> calls;
    std::size_t abandoned = 0;

    void add(Call& call) {
        const std::lock_guard<std::mutex> lock(mutex);
        const bool is_first = calls.empty() || call.deadline_ < calls.begin()->first;
        calls.emplace(call.deadline_, &call);
        if (is_first) changed.notify_one();
    }

    void remove(Call& call) {
        const std::lock_guard<std::mutex> lock(mutex);
        if (call.stage_ == Call::Stage::Abandoned) {
            --abandoned;
            return;
        }
        const auto [first, last] = calls.equal_range(call.deadline_);
        for (auto entry = first; entry != last; ++entry) {
            if (entry->second == &call) {
                calls.erase(entry);
                return;
            }
        }
    }

    [[noreturn]] void run() {
        std::unique_lock<std::mutex> lock(mutex);
        for (;;) {
            if (calls.empty()) {
                changed.wait(lock);
                continue;
            }
            // Copied, because the call may end in the meantime.
            const auto next = calls.begin()->first;
            if (Clock::now() < next) {
                changed.wait_until(lock, next);
            } else {
                Call& call = *calls.begin()->second;
                calls.erase(calls.begin());
                expire(call);
            }
        }
    }

    void interrupt_all() {
        const std::lock_guard<std::mutex> lock(mutex);
        for (const auto& entry : calls) {
            if (entry.second->held_up_ != nullptr) entry.second->held_up_->interrupt(false);
        }
    }

    // The call cannot end during this: its removal needs the lock.
    void expire(Call& call) {
        const bool is_new = call.stage_ == Call::Stage::Running;
        const bool fails = is_new ? call.waits_ == Call::Waits::No : call.waits_ == Call::Waits::ForPeer;
        if (fails && call.module_ != no_module) {
            report_failure(call.module_, std::string(call.what_) + " did not return within " + seconds(call.time_));
        }
        if (call.held_up_ == nullptr) give_up();
        if (is_new) {
            call.stage_ = Call::Stage::Interrupted;
            call.held_up_->interrupt(fails);
            call.deadline_ += grace;
            calls.emplace(call.deadline_, &call);
            return;
        }
        call.stage_ = Call::Stage::Abandoned;
        call.held_up_->abandon();
        if (++abandoned > abandoned_max) {
            report_failure(no_module, std::to_string(abandoned) + " calls of modules do not return");
            give_up();
        }
    }
};

namespace {

Watchdog& watchdog() {
    // Never destroyed: abandoned threads may outlive `main`.
    static auto* watchdog = new Watchdog;
    return *watchdog;
}

}

Call::Call(Interruptible* held_up, std::size_t module, const char* what, Waits waits, Clock::duration time)
    : held_up_(held_up), module_(module), what_(what), waits_(waits), time_(time), deadline_(Clock::now() + time),
      outer_(running_call) {
    running_call = this;
    watchdog().add(*this);
}

Call::~Call() {
    watchdog().remove(*this);
    running_call = outer_;
}

bool Call::is_late() const {
    const std::lock_guard<std::mutex> lock(watchdog().mutex);
    return stage_ != Stage::Running;
}

void Call::running(std::size_t& module, const char*& what) {
    module = running_call == nullptr ? no_module : running_call->module_;
    what = running_call == nullptr ? "" : running_call->what_;
}

void start_watchdog() {
    std::thread([] { watchdog().run(); }).detach();
}

std::size_t abandoned_calls() {
    const std::lock_guard<std::mutex> lock(watchdog().mutex);
    return watchdog().abandoned;
}

void interrupt_calls() { watchdog().interrupt_all(); }

void report_failure(std::size_t module, const std::string& what) {
    MessageWriter message(Report::Failed);
    if (module == no_module) {
        message.field("");
    } else {
        message.field(module);
    }
    control::send(message.field(one_line(what)));
}

std::string one_line(std::string text) {
    if (text.size() > text_bytes_max) text = text.substr(0, text_bytes_max) + "…";
    for (char& byte : text) {
        if (static_cast<unsigned char>(byte) < ' ' || byte == 0x7f) byte = ' ';
    }
    return text;
}

}

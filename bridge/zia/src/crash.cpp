// Reports a fatal signal together with the module that ran on the thread. The handler does not allocate.
#include "crash.hpp"

#include <csignal>
#include <cstdlib>
#include <cstring>

#include "call.hpp"
#include "control.hpp"

namespace bridge {

namespace {

constexpr std::size_t stack_bytes = 32 * 1024;

// A message that is built on the stack.
class SignalMessage {
public:
    explicit SignalMessage(Report kind) { bytes_[size_++] = static_cast<char>(kind); }

    void field(const char* text) {
        const std::size_t length = std::strlen(text);
        if (length > sizeof bytes_ - size_ - 4) return;
        for (int shift = 0; shift < 32; shift += 8) bytes_[size_++] = static_cast<char>(length >> shift);
        std::memcpy(bytes_ + size_, text, length);
        size_ += length;
    }
    void number(std::size_t number) {
        char digits[24] = {};
        char* start = digits + sizeof digits - 1;
        do {
            *--start = static_cast<char>('0' + number % 10);
            number /= 10;
        } while (number != 0);
        field(start);
    }
    void send() const { control::send_from_signal(bytes_, size_); }

private:
    char bytes_[256];
    std::size_t size_ = 0;
};

extern "C" void on_crash(int number) {
    std::size_t module = no_module;
    const char* what = "";
    Call::running(module, what);
    SignalMessage message(Report::Crashed);
    if (module == no_module) {
        message.field("");
    } else {
        message.number(module);
    }
    message.field(what);
    message.send();
    // SA_RESETHAND has removed the handler, so this ends the process.
    ::raise(number);
}

extern "C" void on_ignored(int) {}

}

void report_crashes() {
    for (const int number : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS}) {
        struct sigaction action {};
        action.sa_handler = on_crash;
        action.sa_flags = SA_ONSTACK | SA_RESETHAND | SA_NODEFER;
        ::sigaction(number, &action, nullptr);
    }
    // The server decides when the process ends. Unlike an ignored signal, a handler is not inherited by programs of modules.
    for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) {
        struct sigaction action {};
        action.sa_handler = on_ignored;
        action.sa_flags = SA_RESTART;
        ::sigaction(number, &action, nullptr);
    }
}

SignalStack::SignalStack() : memory_(static_cast<char*>(std::malloc(stack_bytes))) {
    stack_t stack{};
    stack.ss_sp = memory_;
    stack.ss_size = stack_bytes;
    if (memory_ != nullptr) ::sigaltstack(&stack, nullptr);
}

SignalStack::~SignalStack() {
    stack_t none{};
    none.ss_flags = SS_DISABLE;
    ::sigaltstack(&none, nullptr);
    std::free(memory_);
}

}

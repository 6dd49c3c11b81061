// What the server is told when the process crashes.
#pragma once

namespace bridge {

// Of the process.
void report_crashes();

// Of a thread: a stack for the handler, so that a stack that is full is reported as well. Freed with this value.
class SignalStack {
public:
    SignalStack();
    SignalStack(const SignalStack&) = delete;
    ~SignalStack();

private:
    char* memory_;
};

}

// Reports to the server that the process crashes.
#pragma once

namespace bridge {

// Installs the signal handlers of the process.
void report_crashes();

// A thread's stack for the signal handler, so that a stack overflow is reported too. Freed by the destructor.
class SignalStack {
public:
    SignalStack();
    SignalStack(const SignalStack&) = delete;
    ~SignalStack();

private:
    char* memory_;
};

}

// Describes exceptions of modules.
#pragma once

#include <cxxabi.h>

#include <cstdlib>
#include <exception>
#include <string>
#include <typeinfo>

namespace bridge {

// Runs foreign code. Calls `failed` with a description of what it throws. The forced unwinding of an ending thread passes.
template <class F, class G>
void guarded(F run, G failed) {
    try {
        run();
    } catch (abi::__forced_unwind&) {
        throw;
    } catch (const std::exception& error) {
        failed(std::string("threw ") + error.what());
    } catch (...) {
        int status = 0;
        const std::type_info* type = abi::__cxa_current_exception_type();
        char* name = type == nullptr ? nullptr : abi::__cxa_demangle(type->name(), nullptr, nullptr, &status);
        failed(std::string("threw a value of the type ") + (name == nullptr ? "that is not known" : name));
        std::free(name);
    }
}

}

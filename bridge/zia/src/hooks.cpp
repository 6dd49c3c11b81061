// Finds the hooks of a module without calling them: the functions in its class's vtable that are not those of the base class.
#include "hooks.hpp"

#include <dlfcn.h>

#include <iterator>

namespace bridge {

namespace {

// In the order of the vtable, where they follow the two destructors.
constexpr const char* names[] = {"onConnectionStart", "onConnectionEnd", "onConnectionRead", "onConnectionWrite",
                                 "onBeforeRequest",   "onRequest",       "onRequestError",   "onResponse"};
constexpr std::size_t first = 2;

// `Zia::API::RequestHandler::`
const std::string base = "_ZN3Zia3API14RequestHandler";

// A function whose symbol is hidden counts as the module's own.
bool is_own(void* function) {
    Dl_info info{};
    if (::dladdr(function, &info) == 0 || info.dli_sname == nullptr) return true;
    return std::string(info.dli_sname).rfind(base, 0) != 0;
}

}

std::string defined_hooks(const Zia::API::RequestHandler& handler) {
    void* const* const table = *reinterpret_cast<void* const* const*>(&handler);
    std::string list;
    for (std::size_t index = 0; index < std::size(names); ++index) {
        if (is_own(table[first + index])) list += (list.empty() ? "" : ", ") + std::string(names[index]);
    }
    return list.empty() ? "no hooks" : list;
}

}

// Detects libraries that cannot work in this process. The types of shared objects must have the same layout on both sides: the
// standard library's strings and containers, and Boost's socket.
#include "refusals.hpp"

#include <cxxabi.h>

#include <Zia/API.hpp>
#include <algorithm>
#include <boost/version.hpp>
#include <cstdlib>
#include <memory>
#include <typeinfo>

namespace bridge {

namespace {

const std::string boost_version = BOOST_LIB_VERSION;

bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

std::string demangled(const char* name) {
    int status = 0;
    const std::unique_ptr<char, void (*)(void*)> text(abi::__cxa_demangle(name, nullptr, nullptr, &status), std::free);
    return status == 0 ? text.get() : name;
}

std::string with_dots(std::string version) {
    std::replace(version.begin(), version.end(), '_', '.');
    return version;
}

// Compares names such as `libboost_x.so.1.74.0` with the Boost headers of this program.
std::string other_linked_boost(const Library& library) {
    for (const auto& name : library.needed) {
        const auto mark = name.find(".so.");
        if (name.rfind("libboost_", 0) != 0 || mark == std::string::npos) continue;
        const auto version = name.substr(mark + 4);
        const auto own = with_dots(boost_version);
        if (version != own && version.rfind(own + ".", 0) != 0) return version;
    }
    return {};
}

// The socket type in a hook's signature, if the library contains it and it differs from this program's.
std::string other_socket(const Library& library) {
    const std::string own = demangled(typeid(tcp::socket).name());
    const std::string before = "Zia::API::RequestHandler::onConnectionStart(Zia::API::Connection const&, ";
    for (const auto& symbol : library.symbols) {
        if (!contains(symbol.name, "RequestHandler17onConnectionStart")) continue;
        const auto signature = demangled(symbol.name.c_str());
        if (signature.rfind(before, 0) != 0) continue;
        const auto found = signature.substr(before.size());
        if (found != own + "&)") return found.substr(0, found.rfind('&'));
    }
    return {};
}

std::string missing_function(const Library& library, const char* name) {
    bool has_mangled = false;
    for (const auto& symbol : library.symbols) {
        if (symbol.is_defined && symbol.name == name) return {};
        const auto mangled = "_Z" + std::to_string(std::string(name).size()) + name;
        has_mangled = has_mangled || (symbol.is_defined && symbol.name.rfind(mangled, 0) == 0);
    }
    const std::string text = name;
    if (has_mangled) return "exports `" + text + "` as a C++ function, expected `ZIA_API_EXPORT` (extern \"C\") before it";
    return "exports no function `" + text + "`; a library built with -fvisibility=hidden has to export it by an attribute";
}

}

std::string refusal(const Library& library) {
    for (const char* name : {"factory", "recycler"}) {
        auto missing = missing_function(library, name);
        if (!missing.empty()) return missing;
    }
    const auto any = [&](auto holds) {
        return std::any_of(library.symbols.begin(), library.symbols.end(), [&](const Symbol& symbol) { return holds(symbol.name); });
    };
    if (any([](const std::string& name) { return contains(name, "St7__debug") || contains(name, "11__gnu_debug"); })) {
        return "was built with _GLIBCXX_DEBUG, which changes the standard containers; build it without";
    }
    if (any([](const std::string& name) { return contains(name, "NSt3__1"); })) {
        return "was built with libc++, expected GCC's standard library (libstdc++)";
    }
    const bool has_new_strings = any([](const std::string& name) { return contains(name, "7__cxx11"); });
    if (!has_new_strings && any([](const std::string& name) { return name.rfind("_ZNSs", 0) == 0 || name.rfind("_ZNKSs", 0) == 0; })) {
        return "was built with the old std::string (_GLIBCXX_USE_CXX11_ABI=0); build it without that macro";
    }
    const auto linked = other_linked_boost(library);
    if (!linked.empty()) {
        return "is linked with Boost " + linked + ", this bridge was built with " + with_dots(boost_version) +
               "; build one of them with the other's (`cargo xtask modules --boost DIR`)";
    }
    const auto socket = other_socket(library);
    if (!socket.empty()) {
        return "takes the socket of another Boost (" + socket + "), this bridge was built with " +
               with_dots(boost_version) + "; build one of them with the other's (`cargo xtask modules --boost DIR`)";
    }
    return {};
}

}

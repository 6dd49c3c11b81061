// Which hooks a module has: for the log, since a hook that answers `Ok` hides it from the modules after it.
#pragma once

#include <Zia/API.hpp>
#include <string>

namespace bridge {

// The names of the hooks that the class of a handler defines.
std::string defined_hooks(const Zia::API::RequestHandler& handler);

}

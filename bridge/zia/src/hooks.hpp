// Which hooks a module has. Logged, because a hook that returns `Ok` keeps later modules from being called.
#pragma once

#include <Zia/API.hpp>
#include <string>

namespace bridge {

// The names of the hooks that the handler's class overrides.
std::string defined_hooks(const Zia::API::RequestHandler& handler);

}

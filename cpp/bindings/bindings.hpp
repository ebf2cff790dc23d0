#pragma once

// The one includer of pybind11. Hot types are raw C-API (python_api.hpp): a method call through them costs a quarter of
// one through pybind11.
#include <pybind11/pybind11.h>

namespace peercore::bindings {

void register_errors(pybind11::module_& module);
void register_runtime(pybind11::module_& module);
void register_rate_limit_config(pybind11::module_& module);
void register_rate_limiter(pybind11::module_& module);

}  // namespace peercore::bindings

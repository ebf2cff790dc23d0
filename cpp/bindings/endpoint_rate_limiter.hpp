#pragma once

#include "python_api.hpp"

namespace pybind11 {
class module_;
}

namespace peercore::bindings {

/// Adds peercore._core.EndpointLimiter, the base of EndpointRateLimiter, and its operations. False with a Python error
/// set.
[[nodiscard]] bool init_endpoint_limiter(pybind11::module_& module);

}  // namespace peercore::bindings

#include "bindings.hpp"

namespace pc = peercore::bindings;

PYBIND11_MODULE(_core, module) {
  module.doc() = "Native core of peercore. Use the public modules under peercore.services instead.";
  module.attr("__version__") = PEERCORE_VERSION;

  pc::register_errors(module);
  pc::register_runtime(module);
  pc::register_rate_limit_config(module);
  pc::register_rate_limiter(module);
}

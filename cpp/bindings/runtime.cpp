#include <string>

#include "bindings.hpp"
#include "coroutine.hpp"
#include "native_method.hpp"

namespace peercore::bindings {
namespace {

std::string compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#elif defined(__GNUC__)
  return "gcc " __VERSION__;
#else
  return "unknown";
#endif
}

pybind11::dict build_info() {
  pybind11::dict info;
  info["version"] = PEERCORE_VERSION;
  info["compiler"] = compiler();
  info["build_type"] = PEERCORE_BUILD_TYPE;
  info["sanitizers"] = PEERCORE_SANITIZERS;
  info["cxx_standard"] = __cplusplus;
  info["pybind11"] = std::to_string(PYBIND11_VERSION_MAJOR) + "." + std::to_string(PYBIND11_VERSION_MINOR) + "." +
                     std::to_string(PYBIND11_VERSION_MICRO);
  info["libraries"] = pybind11::list();  // nothing beside the C++ runtime yet
  return info;
}

pybind11::dict native_paths() {
  pybind11::dict paths;
  for (const KnownOperation& known : operations()) {
    paths[known.operation->name] = known.used;
  }
  return paths;
}

}  // namespace

void register_runtime(pybind11::module_& module) {
  if (init_coroutine_type() < 0 || init_native_method_type() < 0) {
    throw pybind11::error_already_set();
  }
  module.add_object("NativeCoroutine", reinterpret_cast<PyObject*>(coroutine_type()));
  module.add_object("NativeMethod", reinterpret_cast<PyObject*>(native_method_type()));
  module.def("build_info", build_info, "Return how this module was built: versions, compiler, linked libraries.");
  module.def("native_paths", native_paths, "Return the native operations by name, and whether a service uses each.");
}

}  // namespace peercore::bindings

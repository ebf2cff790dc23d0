#include "errors.hpp"

#include "bindings.hpp"

namespace peercore::bindings {

PyObject* exception_class(Errc code) noexcept {
  switch (code) {
    case Errc::invalid_config:
    case Errc::invalid_argument:
    case Errc::key_too_long:
      return PyExc_ValueError;
    case Errc::table_full:
      return PyExc_MemoryError;
  }
  return PyExc_SystemError;
}

std::nullptr_t raise(const Error& error) {
  PyErr_SetString(exception_class(error.code), error.message().c_str());
  return nullptr;
}

void register_errors(pybind11::module_& module) {
  module.def(
      "error_table",
      [] {
        pybind11::dict table;
        for (int value = 1; value <= kLastErrc; ++value) {
          const auto code = static_cast<Errc>(value);
          table[pybind11::str(make_error_code(code).message())] =
              pybind11::reinterpret_borrow<pybind11::object>(exception_class(code));
        }
        return table;
      },
      "Return the core's error messages with the exception class each one is raised as.");
}

}  // namespace peercore::bindings

#pragma once

#include <exception>
#include <new>

#include "peercore/base/errc.hpp"
#include "python_api.hpp"

namespace peercore::bindings {

/// Sets the Python exception that stands for `error` and returns null, to be returned in turn.
std::nullptr_t raise(const Error& error);

/// The Python exception class for a core error (borrowed).
[[nodiscard]] PyObject* exception_class(Errc code) noexcept;

/// `Guarded<function>::call` is `function` with C++ exceptions turned into Python ones, because none may pass through
/// the interpreter's C frames. The core throws only when memory runs out. It then returns `Failure`.
template <auto Function, auto Failure = nullptr>
struct Guarded;

template <class Answer, class... Arguments, Answer (*Function)(Arguments...), auto Failure>
struct Guarded<Function, Failure> {
  static Answer call(Arguments... arguments) noexcept {
    try {
      return Function(arguments...);
    } catch (const std::bad_alloc&) {
      PyErr_NoMemory();
    } catch (const std::exception& error) {
      PyErr_SetString(PyExc_RuntimeError, error.what());
    }
    return Failure;
  }
};

}  // namespace peercore::bindings

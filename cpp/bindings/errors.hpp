#pragma once

#include "peercore/base/errc.hpp"
#include "python_api.hpp"

namespace peercore::bindings {

/// Sets the Python exception that stands for `error` and returns null, to be returned in turn.
std::nullptr_t raise(const Error& error);

/// The Python exception class for a core error (borrowed).
[[nodiscard]] PyObject* exception_class(Errc code) noexcept;

}  // namespace peercore::bindings

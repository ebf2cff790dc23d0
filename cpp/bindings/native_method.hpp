#pragma once

#include <vector>

#include "coroutine.hpp"

namespace peercore::bindings {

inline constexpr int kMaxArguments = 4;

/// How the first step of a native coroutine ended.
enum class Step {
  returned,  ///< `*result` is a new reference
  raised,    ///< a Python error is set
  delegate,  ///< the native short cut does not apply: run the Python coroutine function instead
};

/// An `async def` method done natively: its work, and how its arguments are read.
struct NativeOperation {
  /// Under which Python finds it.
  const char* name;
  /// Does the work. `arguments[0]` is self, those not given are null. Must not run the event loop.
  Step (*run)(PyObject* const* arguments, PyObject** result);
  /// Called when the coroutine is made, or null. May start loading memory; must have no effect (contract/general, G2).
  void (*expect)(PyObject* const* arguments);
  /// Type that `arguments[0]` must have; anything else goes to the Python coroutine function.
  PyTypeObject* (*self_type)();
  /// Parameter names after self; the first `required` have no default, the first `positional` may be given by position.
  const char* parameters[kMaxArguments - 1];
  int required;
  int positional;
};

/// The descriptor that stands in a class for an `async def` method: calling it makes a native coroutine.
///
/// It keeps the Python coroutine function that it decorates and shows that function's code, defaults, annotations and
/// names, which is all that inspect and asyncio ask of a coroutine function (contract/general, G3, G4). The function
/// also runs when the operation asks for it, when self is of another type, and to report wrong arguments.
struct NativeMethod {
  PyObject_HEAD
  vectorcallfunc vectorcall;
  const NativeOperation* operation;
  PyObject* function;
  PyObject* dict;
  PyObject* parameters[kMaxArguments - 1];  // interned names; null past the last
};

/// Calls the Python coroutine function with arguments laid out as for `NativeOperation::run`.
[[nodiscard]] PyObject* call_function(const NativeMethod& method, PyObject* const* arguments);

/// The operations that `NativeMethod` can be given; each component adds its own when it is registered.
struct KnownOperation {
  const NativeOperation* operation;
  bool used;  ///< a class has a method that does it
};
[[nodiscard]] std::vector<KnownOperation>& operations();
void add_operation(const NativeOperation& operation);

[[nodiscard]] int init_native_method_type();
[[nodiscard]] PyTypeObject* native_method_type() noexcept;

}  // namespace peercore::bindings

#pragma once

#include <array>

#include "native_method.hpp"

namespace peercore::bindings {

enum class State : unsigned char { created, running, suspended, done };

struct Coroutine {
  PyObject_HEAD
  NativeMethod* method;
  std::array<PyObject*, kMaxArguments> arguments;
  PyObject* inner;  // the Python coroutine that does the work after Step::delegate
  PyObject* origin;
  PyObject* weak_references;
  State state;
  bool tracked;    // by the garbage collector: only once suspended
  bool finalised;  // CPython runs a finaliser once per allocation, whatever became of the object since
};

[[nodiscard]] inline Coroutine* as_coroutine(PyObject* object) noexcept { return reinterpret_cast<Coroutine*>(object); }
[[nodiscard]] inline PyObject* function_of(const Coroutine* self) noexcept { return self->method->function; }

/// A frame of the coroutine function, for tracebacks and `cr_frame`. New reference, or null with a Python error set.
[[nodiscard]] PyFrameObject* new_frame(const Coroutine* self);

/// Where the running code is, at most `depth` frames up, as `cr_origin` shows it. New reference, or null with no error
/// set.
[[nodiscard]] PyObject* collect_origin(int depth);

[[nodiscard]] PyObject* coroutine_repr(PyObject* object);
extern PyGetSetDef coroutine_getters[];

}  // namespace peercore::bindings

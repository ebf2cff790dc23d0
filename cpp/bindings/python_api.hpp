#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <utility>

namespace peercore::bindings {

/// Owns one reference. Only for use with the GIL held.
class Ref {
 public:
  Ref() = default;
  /// Takes over a new reference (or null, with a Python error set).
  static Ref steal(PyObject* object) noexcept { return Ref(object); }
  static Ref share(PyObject* object) noexcept {
    Py_XINCREF(object);
    return Ref(object);
  }
  Ref(const Ref&) = delete;
  Ref& operator=(const Ref&) = delete;
  Ref(Ref&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  Ref& operator=(Ref&& other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~Ref() { Py_XDECREF(object_); }

  [[nodiscard]] PyObject* get() const noexcept { return object_; }
  [[nodiscard]] PyObject* release() noexcept { return std::exchange(object_, nullptr); }
  explicit operator bool() const noexcept { return object_ != nullptr; }

 private:
  explicit Ref(PyObject* object) noexcept : object_(object) {}
  PyObject* object_ = nullptr;
};

/// Slot and method tables store every function as one generic pointer type.
template <class Function>
[[nodiscard]] inline void* slot(Function* function) noexcept {
  return reinterpret_cast<void*>(function);
}
template <class Function>
[[nodiscard]] inline PyCFunction method(Function* function) noexcept {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

}  // namespace peercore::bindings

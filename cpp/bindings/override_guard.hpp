#pragma once

#include <array>

#include "python_api.hpp"

namespace peercore::bindings {

/// Tells whether an object still has the methods that a native short cut bypasses.
///
/// v1.2's classes are plain Python: callers subclass them, patch them and set attributes on instances
/// (contract/general, G5). A native method that would skip `self.get_config(...)` may do so only while that name means
/// what it meant when the class was made. The answer is cached per type under CPython's type version tag, which changes
/// with every change to the type or its bases, so the usual check is two comparisons. Thread safety: the GIL. Guards
/// are static: what they watch is kept for good, and no destructor runs after the interpreter.
class OverrideGuard {
 public:
  static constexpr std::size_t kMaxNames = 4;

  /// Remembers what `names` (a tuple of str) mean in `owner` now. False with a Python error set.
  [[nodiscard]] bool watch(PyTypeObject* owner, PyObject* names);

  /// True when none of the watched names is overridden in `type` or in the instance's `dict` (may be null).
  [[nodiscard]] bool pristine(PyTypeObject* type, PyObject* dict);

 private:
  [[nodiscard]] bool type_is_pristine(PyTypeObject* type);
  [[nodiscard]] bool instance_is_pristine(PyObject* dict) const;

  std::array<PyObject*, kMaxNames> names_{};
  std::array<PyObject*, kMaxNames> meanings_{};
  std::size_t count_ = 0;
  PyTypeObject* known_type_ = nullptr;  ///< compared, never followed: a new type at the same address has another tag
  unsigned int known_version_ = 0;
};

inline bool OverrideGuard::pristine(PyTypeObject* type, PyObject* dict) {
  if ((type != known_type_ || type->tp_version_tag != known_version_ || known_version_ == 0) &&
      !type_is_pristine(type)) {
    return false;
  }
  return dict == nullptr || PyDict_GET_SIZE(dict) == 0 || instance_is_pristine(dict);
}

}  // namespace peercore::bindings

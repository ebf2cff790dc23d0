#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <vector>

#include "peercore/base/key_table.hpp"
#include "python_api.hpp"

namespace peercore::bindings {

/// Any hashable Python object as a key of a KeyTable, with CPython's notion of equality.
///
/// A str goes in as its own characters, with the hash that CPython keeps in it: no reference is held and no hash
/// computed. Every other object (None, int, tuple, a str subclass with an `__eq__` of its own) is kept in a dict and
/// goes in as a number, so that `1`, `1.0` and `True` stay one key. Thread safety: the GIL. `resolve` may run Python
/// code (`__hash__`, `__eq__`), the rest does not.
class KeyRing {
 public:
  /// Tag of keys that are object numbers; 1, 2 and 4 are text of that many bytes a character.
  static constexpr std::uint8_t kObjectTag = 0;

  /// False with a Python error set (TypeError: unhashable). `out` is valid until the next call.
  [[nodiscard]] bool resolve(PyObject* key, KeyView& out);
  /// Like `resolve`, for look-ups: an object that is not in the ring gets a key that no table holds.
  [[nodiscard]] bool resolve_known(PyObject* key, KeyView& out);

  /// The Python object of a key: a new str, or the kept object. New reference, or null with a Python error set.
  [[nodiscard]] PyObject* to_object(const KeyView& key) const;

  /// Notes that a key has left its table. The object itself is dropped by the next `settle`, outside the table.
  void forget(const KeyView& key);
  /// Drops what `forget` noted. May run Python code (`__del__`); call it with the table at rest.
  void settle() {
    if (!leaving_.empty()) [[unlikely]] {
      drop_leaving();
    }
  }

  /// For a ring's owner: everything it keeps alive.
  [[nodiscard]] int traverse(visitproc visit, void* arg) const;
  void clear() noexcept;

  /// Whether a key goes in as its own characters: resolving it then runs no Python code and leaves nothing behind.
  [[nodiscard]] static bool is_text(PyObject* key) noexcept;

 private:
  [[nodiscard]] static bool text_view(PyObject* key, KeyView& out);
  [[nodiscard]] bool number_of(PyObject* key, bool add, std::uint64_t& number);
  void object_view(std::uint64_t number, KeyView& out) noexcept;
  void drop_leaving();

  Ref numbers_;                     ///< dict: object -> int
  std::vector<PyObject*> objects_;  ///< number -> object, kept alive by the dict; null when free
  std::vector<std::uint64_t> free_;
  std::vector<std::uint64_t> leaving_;
  std::array<char, sizeof(std::uint64_t)> bytes_{};
};

inline bool KeyRing::is_text(PyObject* key) noexcept {
  return PyUnicode_CheckExact(key) || (PyUnicode_Check(key) && Py_TYPE(key)->tp_hash == PyUnicode_Type.tp_hash &&
                                       Py_TYPE(key)->tp_richcompare == PyUnicode_Type.tp_richcompare);
}

inline bool KeyRing::text_view(PyObject* key, KeyView& out) {
#if PY_VERSION_HEX < 0x030C0000
  if (PyUnicode_READY(key) < 0) {
    return false;
  }
#endif
  Py_hash_t hash = reinterpret_cast<PyASCIIObject*>(key)->hash;
  if (hash == -1) {
    hash = PyObject_Hash(key);
  }
  const auto width = static_cast<std::uint8_t>(PyUnicode_KIND(key));
  out = {{static_cast<const char*>(PyUnicode_DATA(key)), static_cast<std::size_t>(PyUnicode_GET_LENGTH(key)) * width},
         static_cast<std::uint64_t>(hash),
         width};
  return true;
}

inline bool KeyRing::resolve(PyObject* key, KeyView& out) {
  if (is_text(key)) [[likely]] {
    return text_view(key, out);
  }
  std::uint64_t number = 0;
  if (!number_of(key, true, number)) {
    return false;
  }
  object_view(number, out);
  return true;
}

}  // namespace peercore::bindings

#include "key.hpp"

#include <limits>

namespace peercore::bindings {
namespace {

constexpr std::uint64_t kUnknown = std::numeric_limits<std::uint64_t>::max();

// Numbers are consecutive; the table wants every bit to matter (finaliser of SplitMix64).
std::uint64_t mix(std::uint64_t x) noexcept {
  x = (x ^ (x >> 30U)) * 0xBF58476D1CE4E5B9U;
  x = (x ^ (x >> 27U)) * 0x94D049BB133111EBU;
  return x ^ (x >> 31U);
}

std::uint64_t number_in(const KeyView& key) noexcept {
  std::uint64_t number = 0;
  std::memcpy(&number, key.text.data(), sizeof number);
  return number;
}

}  // namespace

bool KeyRing::resolve_known(PyObject* key, KeyView& out) {
  if (is_text(key)) {
    return text_view(key, out);
  }
  std::uint64_t number = 0;
  if (!number_of(key, false, number)) {
    return false;
  }
  object_view(number, out);
  return true;
}

PyObject* KeyRing::to_object(const KeyView& key) const {
  if (key.tag == kObjectTag) {
    return Py_NewRef(objects_[number_in(key)]);
  }
  return PyUnicode_FromKindAndData(key.tag, key.text.data(), static_cast<Py_ssize_t>(key.text.size() / key.tag));
}

void KeyRing::forget(const KeyView& key) {
  if (key.tag == kObjectTag) {
    leaving_.push_back(number_in(key));
  }
}

void KeyRing::drop_leaving() {
  while (!leaving_.empty()) {
    const std::uint64_t number = leaving_.back();
    leaving_.pop_back();
    const Ref object = Ref::share(objects_[number]);
    if (PyDict_DelItem(numbers_.get(), object.get()) < 0) {
      // Its __hash__ or __eq__ broke meanwhile. It stays in the dict under its number, which is therefore not used
      // again.
      PyErr_WriteUnraisable(object.get());
      continue;
    }
    objects_[number] = nullptr;
    free_.push_back(number);
  }
}

bool KeyRing::number_of(PyObject* key, bool add, std::uint64_t& number) {
  if (!numbers_) {
    numbers_ = Ref::steal(PyDict_New());
    if (!numbers_) {
      return false;
    }
  }
  if (PyObject* known = PyDict_GetItemWithError(numbers_.get(), key)) {
    number = PyLong_AsUnsignedLongLong(known);
    return true;
  }
  if (PyErr_Occurred() != nullptr) {
    return false;
  }
  if (!add) {
    number = kUnknown;
    return true;
  }
  // Taken before the dict is touched: setting an item can run the key's __eq__, which may come back here.
  if (free_.empty()) {
    number = objects_.size();
    objects_.push_back(nullptr);
  } else {
    number = free_.back();
    free_.pop_back();
  }
  const Ref value = Ref::steal(PyLong_FromUnsignedLongLong(number));
  if (!value || PyDict_SetItem(numbers_.get(), key, value.get()) < 0) {
    free_.push_back(number);
    return false;
  }
  objects_[number] = key;
  return true;
}

void KeyRing::object_view(std::uint64_t number, KeyView& out) noexcept {
  std::memcpy(bytes_.data(), &number, sizeof number);
  out = {{bytes_.data(), bytes_.size()}, mix(number), kObjectTag};
}

int KeyRing::traverse(visitproc visit, void* arg) const {
  Py_VISIT(numbers_.get());
  return 0;
}

void KeyRing::clear() noexcept {
  objects_.clear();
  free_.clear();
  leaving_.clear();
  numbers_ = Ref();
}

}  // namespace peercore::bindings

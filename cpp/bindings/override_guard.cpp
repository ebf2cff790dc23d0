#include "override_guard.hpp"

namespace peercore::bindings {

bool OverrideGuard::watch(PyTypeObject* owner, PyObject* names) {
  count_ = 0;
  known_type_ = nullptr;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); ++i) {
    PyObject* name = PyTuple_GET_ITEM(names, i);
    PyObject* meaning = _PyType_Lookup(owner, name);
    if (meaning == nullptr) {
      PyErr_Format(PyExc_AttributeError, "%s has no attribute %R to watch", owner->tp_name, name);
      return false;
    }
    names_[count_] = Py_NewRef(name);
    meanings_[count_] = Py_NewRef(meaning);
    ++count_;
  }
  return true;
}

bool OverrideGuard::type_is_pristine(PyTypeObject* type) {
  for (std::size_t i = 0; i < count_; ++i) {
    if (_PyType_Lookup(type, names_[i]) != meanings_[i]) {
      return false;
    }
  }
  // The look-ups above have given the type a version tag, unless the interpreter ran out of them.
  if (PyType_HasFeature(type, Py_TPFLAGS_VALID_VERSION_TAG)) {
    known_type_ = type;
    known_version_ = type->tp_version_tag;
  }
  return true;
}

bool OverrideGuard::instance_is_pristine(PyObject* dict) const {
  for (std::size_t i = 0; i < count_; ++i) {
    if (PyDict_GetItemWithError(dict, names_[i]) != nullptr) {
      return false;
    }
    PyErr_Clear();
  }
  return true;
}

}  // namespace peercore::bindings

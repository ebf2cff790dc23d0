#include "native_method.hpp"

#include <structmember.h>

#include <array>
#include <cstddef>

namespace peercore::bindings {
namespace {

PyTypeObject* type_ = nullptr;

NativeMethod* as_method(PyObject* object) noexcept { return reinterpret_cast<NativeMethod*>(object); }

// ---- calling

// Finds the parameter that a keyword names. Interned names compare by address; a caller that builds its own str does
// not get lost, only slower.
int parameter_index(const NativeMethod& self, PyObject* keyword) {
  for (int i = 0; i < kMaxArguments - 1 && self.parameters[i] != nullptr; ++i) {
    if (self.parameters[i] == keyword) {
      return i;
    }
  }
  for (int i = 0; i < kMaxArguments - 1 && self.parameters[i] != nullptr; ++i) {
    if (PyUnicode_Compare(self.parameters[i], keyword) == 0) {
      return i;
    }
  }
  return -1;
}

// Lays borrowed arguments out by parameter. False when the call does not fit; the Python function then says why.
bool place(const NativeMethod& self, PyObject* const* args, Py_ssize_t count, PyObject* keywords,
           std::array<PyObject*, kMaxArguments>& placed) {
  const NativeOperation& operation = *self.operation;
  if (count < 1 || count - 1 > operation.positional) {
    return false;
  }
  // Nearly always the service class itself, which derives from the native type directly.
  PyTypeObject* type = Py_TYPE(args[0]);
  if (type->tp_base != operation.self_type() && PyType_IsSubtype(type, operation.self_type()) == 0) {
    return false;
  }
  static_assert(kMaxArguments == 4);  // written out, because a loop becomes a call to memcpy
  placed[0] = args[0];
  placed[1] = count > 1 ? args[1] : nullptr;
  placed[2] = count > 2 ? args[2] : nullptr;
  placed[3] = count > 3 ? args[3] : nullptr;
  const Py_ssize_t named = keywords != nullptr ? PyTuple_GET_SIZE(keywords) : 0;
  for (Py_ssize_t i = 0; i < named; ++i) {
    const int index = parameter_index(self, PyTuple_GET_ITEM(keywords, i));
    if (index < 0 || placed[static_cast<std::size_t>(index) + 1] != nullptr) {
      return false;
    }
    placed[static_cast<std::size_t>(index) + 1] = args[count + i];
  }
  for (int i = 1; i <= operation.required; ++i) {
    if (placed[static_cast<std::size_t>(i)] == nullptr) {
      return false;
    }
  }
  return true;
}

PyObject* method_call(PyObject* object, PyObject* const* args, std::size_t flags, PyObject* keywords) {
  NativeMethod* self = as_method(object);
  std::array<PyObject*, kMaxArguments> placed{};
  if (!place(*self, args, PyVectorcall_NARGS(flags), keywords, placed)) [[unlikely]] {
    return PyObject_Vectorcall(self->function, args, flags, keywords);
  }
  if (self->operation->expect != nullptr) {
    self->operation->expect(placed.data());
  }
  for (PyObject* argument : placed) {
    Py_XINCREF(argument);
  }
  return new_coroutine(*self, placed.data());
}

PyObject* method_get(PyObject* object, PyObject* instance, PyObject* /*owner*/) {
  return instance == nullptr || instance == Py_None ? Py_NewRef(object) : PyMethod_New(object, instance);
}

// ---- what a function shows

PyObject* forward(PyObject* object, void* name) {
  return PyObject_GetAttrString(as_method(object)->function, static_cast<const char*>(name));
}

PyObject* method_getattro(PyObject* object, PyObject* name) {
  PyObject* found = PyObject_GenericGetAttr(object, name);
  if (found == nullptr && PyErr_ExceptionMatches(PyExc_AttributeError) != 0) {
    PyErr_Clear();
    found = PyObject_GetAttr(as_method(object)->function, name);
  }
  return found;
}

// unittest.mock's autospec, pydoc and inspect.isfunction ask isinstance(x, types.FunctionType).
PyObject* get_class(PyObject* /*object*/, void* /*unused*/) {
  return Py_NewRef(reinterpret_cast<PyObject*>(&PyFunction_Type));
}

PyObject* method_repr(PyObject* object) {
  const Ref name = Ref::steal(PyObject_GetAttrString(as_method(object)->function, "__qualname__"));
  return name ? PyUnicode_FromFormat("<native method %U at %p>", name.get(), object) : nullptr;
}

PyObject* method_reduce(PyObject* object, PyObject* /*unused*/) {
  return PyObject_GetAttrString(as_method(object)->function, "__qualname__");
}

// ---- life

int method_traverse(PyObject* object, visitproc visit, void* arg) {
  NativeMethod* self = as_method(object);
  Py_VISIT(self->function);
  Py_VISIT(self->dict);
  Py_VISIT(Py_TYPE(object));
  return 0;
}

int method_clear(PyObject* object) {
  NativeMethod* self = as_method(object);
  Py_CLEAR(self->dict);
  return 0;
}

void method_dealloc(PyObject* object) {
  NativeMethod* self = as_method(object);
  PyObject_GC_UnTrack(object);
  Py_CLEAR(self->function);
  Py_CLEAR(self->dict);
  for (PyObject*& name : self->parameters) {
    Py_CLEAR(name);
  }
  PyTypeObject* type = Py_TYPE(object);
  type->tp_free(object);
  Py_DECREF(type);
}

const NativeOperation* find_operation(PyObject* name) {
  for (KnownOperation& known : operations()) {
    if (PyUnicode_CompareWithASCIIString(name, known.operation->name) == 0) {
      known.used = true;
      return known.operation;
    }
  }
  PyErr_Format(PyExc_LookupError, "no native operation is named %R", name);
  return nullptr;
}

PyObject* method_new(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  static const char* keywords[] = {"operation", "function", nullptr};
  PyObject *name = nullptr, *function = nullptr;
  if (PyArg_ParseTupleAndKeywords(args, kwargs, "UO!:NativeMethod", const_cast<char**>(keywords), &name,
                                  &PyFunction_Type, &function) == 0) {
    return nullptr;
  }
  const NativeOperation* operation = find_operation(name);
  if (operation == nullptr) {
    return nullptr;
  }
  Ref object = Ref::steal(type->tp_alloc(type, 0));
  if (!object) {
    return nullptr;
  }
  NativeMethod* self = as_method(object.get());
  self->vectorcall = method_call;
  self->operation = operation;
  self->function = Py_NewRef(function);
  for (int i = 0; i < kMaxArguments - 1 && operation->parameters[i] != nullptr; ++i) {
    self->parameters[i] = PyUnicode_InternFromString(operation->parameters[i]);
  }
  return object.release();
}

char kName[] = "__name__";
char kQualname[] = "__qualname__";
char kDoc[] = "__doc__";
char kModule[] = "__module__";

PyGetSetDef getters[] = {{"__name__", forward, nullptr, nullptr, kName},
                         {"__qualname__", forward, nullptr, nullptr, kQualname},
                         {"__doc__", forward, nullptr, nullptr, kDoc},
                         {"__module__", forward, nullptr, nullptr, kModule},
                         {"__class__", get_class, nullptr, "types.FunctionType, for inspect and mock.", nullptr},
                         {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, nullptr, nullptr},
                         {nullptr, nullptr, nullptr, nullptr, nullptr}};

PyMethodDef methods[] = {{"__reduce__", method_reduce, METH_NOARGS, "Pickled by name, as a function is."},
                         {nullptr, nullptr, 0, nullptr}};

PyMemberDef members[] = {{"__vectorcalloffset__", T_PYSSIZET, offsetof(NativeMethod, vectorcall), READONLY, nullptr},
                         {"__dictoffset__", T_PYSSIZET, offsetof(NativeMethod, dict), READONLY, nullptr},
                         {"__wrapped_function__", T_OBJECT, offsetof(NativeMethod, function), READONLY,
                          "The Python coroutine function: what runs when the native path does not apply."},
                         {nullptr, 0, 0, 0, nullptr}};

PyType_Slot slots[] = {{Py_tp_new, slot(method_new)},
                       {Py_tp_dealloc, slot(method_dealloc)},
                       {Py_tp_traverse, slot(method_traverse)},
                       {Py_tp_clear, slot(method_clear)},
                       {Py_tp_call, slot(PyVectorcall_Call)},
                       {Py_tp_descr_get, slot(method_get)},
                       {Py_tp_getattro, slot(method_getattro)},
                       {Py_tp_repr, slot(method_repr)},
                       {Py_tp_getset, getters},
                       {Py_tp_methods, methods},
                       {Py_tp_members, members},
                       {0, nullptr}};

PyType_Spec spec = {"peercore._core.NativeMethod", sizeof(NativeMethod), 0,
                    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR,
                    slots};

}  // namespace

PyObject* call_function(const NativeMethod& method, PyObject* const* arguments) {
  const NativeOperation& operation = *method.operation;
  std::array<PyObject*, kMaxArguments> values{};
  std::size_t positional = 0;
  while (positional <= static_cast<std::size_t>(operation.positional) && arguments[positional] != nullptr) {
    values[positional] = arguments[positional];
    ++positional;
  }
  // What follows a gap, or may not be given by position, goes by name.
  std::array<PyObject*, kMaxArguments> names{};
  std::size_t named = 0;
  for (std::size_t i = positional; i < kMaxArguments; ++i) {
    if (arguments[i] != nullptr) {
      names[named] = method.parameters[i - 1];
      values[positional + named] = arguments[i];
      ++named;
    }
  }
  const Ref keywords = Ref::steal(PyTuple_New(static_cast<Py_ssize_t>(named)));
  if (!keywords) {
    return nullptr;
  }
  for (std::size_t i = 0; i < named; ++i) {
    PyTuple_SET_ITEM(keywords.get(), static_cast<Py_ssize_t>(i), Py_NewRef(names[i]));
  }
  return PyObject_Vectorcall(method.function, values.data(), positional, keywords.get());
}

std::vector<KnownOperation>& operations() {
  static std::vector<KnownOperation> known;
  return known;
}

void add_operation(const NativeOperation& operation) { operations().push_back({&operation, false}); }

int init_native_method_type() {
  type_ = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&spec));
  return type_ != nullptr ? 0 : -1;
}

PyTypeObject* native_method_type() noexcept { return type_; }

}  // namespace peercore::bindings

// What a native coroutine shows of itself, so that Tasks, debuggers and inspect see what a coroutine shows.
#include "coroutine_object.hpp"

// After Python.h, which it needs.
#include <frameobject.h>

namespace peercore::bindings {
namespace {

PyObject* function_attribute(PyObject* object, void* name) {
  return PyObject_GetAttrString(function_of(as_coroutine(object)), static_cast<const char*>(name));
}

PyObject* get_running(PyObject* object, void* /*unused*/) {
  return PyBool_FromLong(as_coroutine(object)->state == State::running);
}

PyObject* get_suspended(PyObject* object, void* /*unused*/) {
  return PyBool_FromLong(as_coroutine(object)->state == State::suspended);
}

PyObject* get_awaited(PyObject* object, void* /*unused*/) {
  const Coroutine* self = as_coroutine(object);
  return self->inner != nullptr ? PyObject_GetAttrString(self->inner, "cr_await") : Py_NewRef(Py_None);
}

PyObject* get_origin(PyObject* object, void* /*unused*/) {
  PyObject* origin = as_coroutine(object)->origin;
  return Py_NewRef(origin != nullptr ? origin : Py_None);
}

PyObject* get_frame(PyObject* object, void* /*unused*/) {
  const Coroutine* self = as_coroutine(object);
  if (self->inner != nullptr) {
    return PyObject_GetAttrString(self->inner, "cr_frame");
  }
  if (self->state == State::done) {
    return Py_NewRef(Py_None);
  }
  return reinterpret_cast<PyObject*>(new_frame(self));
}

// inspect.iscoroutine, and so every framework that uses it, asks isinstance(x, types.CoroutineType).
PyObject* get_class(PyObject* /*object*/, void* /*unused*/) {
  return Py_NewRef(reinterpret_cast<PyObject*>(&PyCoro_Type));
}

char kName[] = "__name__";
char kQualname[] = "__qualname__";
char kCode[] = "__code__";

}  // namespace

PyFrameObject* new_frame(const Coroutine* self) {
  return PyFrame_New(PyThreadState_Get(), reinterpret_cast<PyCodeObject*>(PyFunction_GetCode(function_of(self))),
                     PyFunction_GetGlobals(function_of(self)), nullptr);
}

// sys.set_coroutine_origin_tracking_depth (asyncio's debug mode): frames as (file, line, function).
PyObject* collect_origin(int depth) {
  const Ref frames = Ref::steal(PyList_New(0));
  PyFrameObject* frame = PyEval_GetFrame();
  Py_XINCREF(frame);
  for (int i = 0; frames && frame != nullptr && i < depth; ++i) {
    PyCodeObject* code = PyFrame_GetCode(frame);
    const Ref entry =
        Ref::steal(Py_BuildValue("(OiO)", code->co_filename, PyFrame_GetLineNumber(frame), code->co_name));
    Py_DECREF(code);
    if (!entry || PyList_Append(frames.get(), entry.get()) < 0) {
      break;
    }
    PyFrameObject* back = PyFrame_GetBack(frame);
    Py_SETREF(frame, back);
  }
  Py_XDECREF(frame);
  PyErr_Clear();
  return frames ? PyList_AsTuple(frames.get()) : nullptr;
}

PyObject* coroutine_repr(PyObject* object) {
  const Ref name = Ref::steal(function_attribute(object, const_cast<char*>("__qualname__")));
  return name ? PyUnicode_FromFormat("<coroutine object %S at %p>", name.get(), object) : nullptr;
}

PyGetSetDef coroutine_getters[] = {
    {"__name__", function_attribute, nullptr, "Name of the coroutine function.", kName},
    {"__qualname__", function_attribute, nullptr, "Qualified name of the coroutine function.", kQualname},
    {"cr_code", function_attribute, nullptr, "Code object of the coroutine function.", kCode},
    {"cr_running", get_running, nullptr, "True while a step is being taken.", nullptr},
    {"cr_suspended", get_suspended, nullptr, "True while waiting for an awaited object.", nullptr},
    {"cr_await", get_awaited, nullptr, "The object being awaited, or None.", nullptr},
    {"cr_origin", get_origin, nullptr, "Where it was created, when origin tracking is on, or None.", nullptr},
    {"cr_frame", get_frame, nullptr, "A frame of the coroutine function, or None once finished.", nullptr},
    {"__class__", get_class, nullptr, "types.CoroutineType, for inspect.iscoroutine.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr}};

}  // namespace peercore::bindings

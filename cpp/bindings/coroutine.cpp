#include "coroutine.hpp"

#include <structmember.h>

#include <array>
#include <cstddef>

#include "coroutine_object.hpp"

namespace peercore::bindings {
namespace {

PyTypeObject* type_ = nullptr;

// Objects are kept for reuse, except those whose finaliser ran: CPython runs it once per allocation, so a recycled one
// would lose its "never awaited" warning.
constexpr int kFreeListSize = 64;
std::array<Coroutine*, kFreeListSize> free_list_;
int free_count_ = 0;

void drop_arguments(Coroutine* self) {
  for (PyObject*& argument : self->arguments) {
    Py_CLEAR(argument);
  }
}

// ---- stepping

PySendResult fail(PyObject* exception, const char* message) {
  PyErr_SetString(exception, message);
  return PYGEN_ERROR;
}

// Gives an error that the native code raised the frame that a reader expects to see in its traceback.
void add_frame(Coroutine* self) {
  PyObject *type = nullptr, *value = nullptr, *traceback = nullptr;
  PyErr_Fetch(&type, &value, &traceback);
  PyFrameObject* frame = new_frame(self);
  PyErr_Restore(type, value, traceback);
  if (frame != nullptr) {
    PyTraceBack_Here(frame);
    Py_DECREF(frame);
  }
}

PySendResult finish(Coroutine* self, PySendResult outcome) {
  if (outcome == PYGEN_NEXT) {
    self->state = State::suspended;
    if (!self->tracked) {
      self->tracked = true;
      PyObject_GC_Track(self);
    }
  } else {
    self->state = State::done;
    Py_CLEAR(self->inner);
  }
  return outcome;
}

PySendResult step_inner(Coroutine* self, PyObject* value, PyObject** result) {
  self->state = State::running;
  return finish(self, PyIter_Send(self->inner, value, result));
}

PySendResult start(Coroutine* self, PyObject** result) {
  self->state = State::running;
  NativeMethod& method = *self->method;
  const Step step = method.operation->run(self->arguments.data(), result);
  if (step == Step::returned) [[likely]] {
    self->state = State::done;
    return PYGEN_RETURN;
  }
  if (step == Step::raised) {
    add_frame(self);
    drop_arguments(self);
    return finish(self, PYGEN_ERROR);
  }
  self->inner = call_function(method, self->arguments.data());
  drop_arguments(self);
  return self->inner != nullptr ? step_inner(self, Py_None, result) : finish(self, PYGEN_ERROR);
}

PySendResult coroutine_send(PyObject* object, PyObject* value, PyObject** result) {
  Coroutine* self = as_coroutine(object);
  *result = nullptr;
  switch (self->state) {
    case State::created:
      if (value != Py_None && value != nullptr) {
        return fail(PyExc_TypeError, "can't send non-None value to a just-started coroutine");
      }
      return start(self, result);
    case State::suspended:
      return step_inner(self, value, result);
    case State::running:
      return fail(PyExc_ValueError, "coroutine already executing");
    case State::done:
      break;
  }
  return fail(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
}

// ---- results as StopIteration, which is how CPython 3.12 and later await a foreign coroutine

#if PY_VERSION_HEX >= 0x030C0000
PyObject* stop_iteration_ = nullptr;

// One exception object serves every result, unless somebody caught it and holds it: making a fresh one costs more than
// the rest of the await. Takes over `value`.
bool raise_kept_stop_iteration(PyObject* value) {
  if (Py_REFCNT(stop_iteration_) != 1) {
    return false;
  }
  auto* stop = reinterpret_cast<PyStopIterationObject*>(stop_iteration_);
  Py_XSETREF(stop->value, value);
  Py_CLEAR(stop->traceback);
  Py_CLEAR(stop->context);
  PyErr_SetRaisedException(Py_NewRef(stop_iteration_));
  return true;
}

// The interpreter has fetched the value when it drops the coroutine: it must not live on in the exception.
void empty_kept_stop_iteration() {
  if (Py_REFCNT(stop_iteration_) == 1) {
    Py_CLEAR(reinterpret_cast<PyStopIterationObject*>(stop_iteration_)->value);
  }
}
#endif

void raise_stop_iteration(PyObject* value) {
  // As an instance: PyErr_SetObject would unpack a tuple result into the exception's arguments.
  const Ref stop = Ref::steal(PyObject_CallOneArg(PyExc_StopIteration, value));
  if (stop) {
    PyErr_SetObject(PyExc_StopIteration, stop.get());
  }
}

PyObject* coroutine_next(PyObject* object) {
  PyObject* result = nullptr;
  const PySendResult outcome = coroutine_send(object, Py_None, &result);
  if (outcome == PYGEN_RETURN) {
    if (result == Py_None) {
      Py_DECREF(result);
      return nullptr;  // tp_iternext's own way to end with None
    }
#if PY_VERSION_HEX >= 0x030C0000
    if (raise_kept_stop_iteration(result)) [[likely]] {
      return nullptr;
    }
#endif
    raise_stop_iteration(result);
    Py_CLEAR(result);
  }
  return result;
}

PyObject* method_send(PyObject* object, PyObject* value) {
  PyObject* result = nullptr;
  if (coroutine_send(object, value, &result) == PYGEN_RETURN) {
    raise_stop_iteration(result);
    Py_CLEAR(result);
  }
  return result;
}

// ---- throw and close

PyObject* throw_into_inner(Coroutine* self, PyObject* const* args, Py_ssize_t count) {
  self->state = State::running;
  const Ref name = Ref::steal(PyUnicode_InternFromString("throw"));
  const Ref throw_method = name ? Ref::steal(PyObject_GetAttr(self->inner, name.get())) : Ref();
  PyObject* result =
      throw_method ? PyObject_Vectorcall(throw_method.get(), args, static_cast<std::size_t>(count), nullptr) : nullptr;
  finish(self, result != nullptr ? PYGEN_NEXT : PYGEN_ERROR);
  return result;
}

// Raises what `throw(type[, value[, traceback]])` names, as it would be raised at the start of the function's body.
void raise_thrown(PyObject* const* args, Py_ssize_t count) {
  PyObject* type = args[0];
  PyObject* value = count > 1 && args[1] != Py_None ? args[1] : nullptr;
  PyObject* traceback = count > 2 && args[2] != Py_None ? args[2] : nullptr;
  if (traceback != nullptr && !PyTraceBack_Check(traceback)) {
    PyErr_SetString(PyExc_TypeError, "throw() third argument must be a traceback object");
    return;
  }
  if (PyExceptionInstance_Check(type)) {
    if (value != nullptr) {
      PyErr_SetString(PyExc_TypeError, "instance exception may not have a separate value");
      return;
    }
    value = type;
    type = PyExceptionInstance_Class(type);
    if (traceback == nullptr) {
      const Ref own = Ref::steal(PyException_GetTraceback(value));
      PyErr_Restore(Py_NewRef(type), Py_NewRef(value), own ? Py_NewRef(own.get()) : nullptr);
      return;
    }
  } else if (!PyExceptionClass_Check(type)) {
    PyErr_Format(PyExc_TypeError, "exceptions must be classes or instances deriving from BaseException, not %s",
                 Py_TYPE(type)->tp_name);
    return;
  }
  PyErr_Restore(Py_NewRef(type), Py_XNewRef(value), Py_XNewRef(traceback));
}

PyObject* method_throw(PyObject* object, PyObject* const* args, Py_ssize_t count) {
  Coroutine* self = as_coroutine(object);
  if (count < 1 || count > 3) {
    return PyErr_Format(PyExc_TypeError, "throw() takes 1 to 3 arguments (%zd given)", count);
  }
  switch (self->state) {
    case State::created:
      raise_thrown(args, count);
      add_frame(self);
      drop_arguments(self);
      finish(self, PYGEN_ERROR);
      return nullptr;
    case State::suspended:
      return throw_into_inner(self, args, count);
    case State::running:
      fail(PyExc_ValueError, "coroutine already executing");
      return nullptr;
    case State::done:
      break;
  }
  fail(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
  return nullptr;
}

PyObject* method_close(PyObject* object, PyObject* /*unused*/) {
  Coroutine* self = as_coroutine(object);
  if (self->state == State::running) {
    fail(PyExc_ValueError, "coroutine already executing");
    return nullptr;
  }
  Ref closed = Ref::share(Py_None);
  if (self->state == State::suspended) {
    self->state = State::running;
    closed = Ref::steal(PyObject_CallMethod(self->inner, "close", nullptr));
  }
  drop_arguments(self);
  finish(self, PYGEN_RETURN);
  return closed ? Py_NewRef(Py_None) : nullptr;
}

PyObject* coroutine_await(PyObject* object) {
  const Coroutine* self = as_coroutine(object);
  if (self->state == State::running || self->state == State::suspended) {
    fail(PyExc_RuntimeError, "coroutine is being awaited already");
    return nullptr;
  }
  return Py_NewRef(object);
}

PyObject* method_await(PyObject* object, PyObject* /*unused*/) { return coroutine_await(object); }

// ---- life

// Called by the collector too, for one that was suspended in a cycle.
void coroutine_finalize(PyObject* object) {
  as_coroutine(object)->finalised = true;
  if (as_coroutine(object)->state != State::created) {
    return;
  }
  PyObject *type = nullptr, *value = nullptr, *traceback = nullptr;
  PyErr_Fetch(&type, &value, &traceback);
  const Ref warnings = Ref::steal(PyImport_ImportModule("warnings"));
  const Ref warned =
      warnings ? Ref::steal(PyObject_CallMethod(warnings.get(), "_warn_unawaited_coroutine", "O", object)) : Ref();
  if (!warned) {
    PyErr_WriteUnraisable(object);
  }
  PyErr_Restore(type, value, traceback);
}

int coroutine_traverse(PyObject* object, visitproc visit, void* arg) {
  Coroutine* self = as_coroutine(object);
  for (PyObject* argument : self->arguments) {
    Py_VISIT(argument);
  }
  Py_VISIT(reinterpret_cast<PyObject*>(self->method));
  Py_VISIT(self->inner);
  Py_VISIT(self->origin);
  Py_VISIT(Py_TYPE(object));
  return 0;
}

int coroutine_clear(PyObject* object) {
  Coroutine* self = as_coroutine(object);
  drop_arguments(self);
  Py_CLEAR(self->inner);
  Py_CLEAR(self->origin);
  return 0;
}

void coroutine_dealloc(PyObject* object) {
  Coroutine* self = as_coroutine(object);
  if (self->state == State::created) [[unlikely]] {
    if (PyObject_CallFinalizerFromDealloc(object) < 0) {
      return;  // the warning's handler kept it
    }
  }
  const bool recyclable = !self->finalised;
  if (self->tracked) {
    self->tracked = false;
    PyObject_GC_UnTrack(object);
  }
  if (self->weak_references != nullptr) {
    PyObject_ClearWeakRefs(object);
  }
#if PY_VERSION_HEX >= 0x030C0000
  empty_kept_stop_iteration();
#endif
  drop_arguments(self);
  Py_CLEAR(self->method);
  Py_CLEAR(self->inner);
  Py_CLEAR(self->origin);
  if (recyclable && free_count_ < kFreeListSize) {
    free_list_[static_cast<std::size_t>(free_count_++)] = self;
  } else {
    PyObject_GC_Del(self);
    Py_DECREF(type_);
  }
}

PyMethodDef methods[] = {
    {"send", method_send, METH_O, "send(value): resume, or start with None. Raises StopIteration with the result."},
    {"throw", method(method_throw), METH_FASTCALL, "throw(type[, value[, traceback]]): raise inside the coroutine."},
    {"close", method_close, METH_NOARGS, "close(): end the coroutine without running it further."},
    {"__await__", method_await, METH_NOARGS, "Return the iterator that runs the coroutine: itself."},
    {nullptr, nullptr, 0, nullptr}};

PyMemberDef members[] = {{"__weaklistoffset__", T_PYSSIZET, offsetof(Coroutine, weak_references), READONLY, nullptr},
                         {nullptr, 0, 0, 0, nullptr}};

PyType_Slot slots[] = {{Py_tp_dealloc, slot(coroutine_dealloc)},
                       {Py_tp_traverse, slot(coroutine_traverse)},
                       {Py_tp_clear, slot(coroutine_clear)},
                       {Py_tp_finalize, slot(coroutine_finalize)},
                       {Py_tp_repr, slot(coroutine_repr)},
                       {Py_tp_iternext, slot(coroutine_next)},
                       {Py_am_await, slot(coroutine_await)},
                       {Py_am_send, slot(coroutine_send)},
                       {Py_tp_getset, coroutine_getters},
                       {Py_tp_methods, methods},
                       {Py_tp_members, members},
                       {0, nullptr}};

PyType_Spec spec = {
    "peercore._core.NativeCoroutine", sizeof(Coroutine), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE, slots};

Coroutine* allocate() {
  if (free_count_ > 0) {
    Coroutine* self = free_list_[static_cast<std::size_t>(--free_count_)];
    PyObject* object = reinterpret_cast<PyObject*>(self);
#ifdef Py_TRACE_REFS
    _Py_NewReference(object);
#else
    Py_SET_REFCNT(object, 1);
#endif
    return self;
  }
  Coroutine* self = PyObject_GC_New(Coroutine, type_);
  if (self != nullptr) {
    self->arguments.fill(nullptr);
    self->inner = nullptr;
    self->origin = nullptr;
    self->weak_references = nullptr;
    self->tracked = false;
    self->finalised = false;
  }
  return self;
}

}  // namespace

PyObject* new_coroutine(NativeMethod& method, PyObject* const* arguments) {
  Coroutine* self = allocate();
  if (self == nullptr) {
    for (int i = 0; i < kMaxArguments; ++i) {
      Py_XDECREF(arguments[i]);
    }
    return nullptr;
  }
  Py_INCREF(&method);
  self->method = &method;
  for (std::size_t i = 0; i < self->arguments.size(); ++i) {
    self->arguments[i] = arguments[i];  // std::copy_n becomes a call to memmove here
  }
  self->state = State::created;
  if (const int depth = PyThreadState_GET()->coroutine_origin_tracking_depth; depth > 0) [[unlikely]] {
    self->origin = collect_origin(depth);
  }
  return reinterpret_cast<PyObject*>(self);
}

int init_coroutine_type() {
#if PY_VERSION_HEX >= 0x030C0000
  stop_iteration_ = PyObject_CallNoArgs(PyExc_StopIteration);
  if (stop_iteration_ == nullptr) {
    return -1;
  }
#endif
  type_ = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&spec));
  return type_ != nullptr ? 0 : -1;
}

PyTypeObject* coroutine_type() noexcept { return type_; }

}  // namespace peercore::bindings

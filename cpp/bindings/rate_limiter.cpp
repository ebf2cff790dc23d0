#include "rate_limiter.hpp"

#include <structmember.h>

#include <cstddef>

#include "bindings.hpp"
#include "endpoint_rate_limiter.hpp"
#include "errors.hpp"
#include "native_method.hpp"
#include "rate_limit_config.hpp"

namespace peercore::bindings {
namespace {

using ratelimit::Bucket;
using ratelimit::Counters;

PyTypeObject* type_ = nullptr;

RateLimiterObject* as_limiter(PyObject* object) noexcept { return reinterpret_cast<RateLimiterObject*>(object); }

// ---- life

bool to_bound(PyObject* value, const char* name, std::size_t& bound) {
  if (value == Py_None) {
    bound = Limits::kUnlimited;
    return true;
  }
  const Py_ssize_t number = PyLong_Check(value) ? PyLong_AsSsize_t(value) : -1;
  if (!PyLong_Check(value)) {
    PyErr_Format(PyExc_TypeError, "%s must be an int or None, not %.200s", name, Py_TYPE(value)->tp_name);
    return false;
  }
  if (number < 1) {
    PyErr_Clear();
    PyErr_Format(PyExc_ValueError, "%s must be at least 1, got %R", name, value);
    return false;
  }
  bound = static_cast<std::size_t>(number);
  return true;
}

PyObject* limiter_new(PyTypeObject* type, PyObject* /*args*/, PyObject* /*kwargs*/) {
  Ref object = Ref::steal(type->tp_alloc(type, 0));
  if (!object) {
    return nullptr;
  }
  RateLimiterObject* self = as_limiter(object.get());
  self->default_config = Py_NewRef(Py_None);
  self->configs = PyDict_New();
  self->lines = PyDict_New();
#if PY_VERSION_HEX < 0x030C0000
  self->dict = PyDict_New();  // CPython 3.11 specialises method calls on such objects only when they have their dict
#endif
  self->state = new LimiterState(Limits{}, ratelimit::Rules{});
  return self->configs != nullptr && self->lines != nullptr ? object.release() : nullptr;
}

// Everything that only construction decides. Calling __init__ again starts with an empty table, as it does in v1.2.
int limiter_init(PyObject* object, PyObject* args, PyObject* kwargs) {
  static const char* keywords[] = {"max_buckets", "clock", "integer_retry_after", "enforce_window", "exact", nullptr};
  PyObject *max_buckets = nullptr, *clock = Py_None;
  int integer_retry_after = 0, enforce_window = 0, exact = 0;
  if (PyArg_ParseTupleAndKeywords(args, kwargs, "|$OOppp:RateLimiter", const_cast<char**>(keywords), &max_buckets,
                                  &clock, &integer_retry_after, &enforce_window, &exact) == 0) {
    return -1;
  }
  Limits limits;
  if (max_buckets != nullptr) {
    if (!to_bound(max_buckets, "max_buckets", limits.max_buckets)) {
      return -1;
    }
    if (max_buckets == Py_None) {
      limits.max_key_bytes = Limits::kUnlimited;
    }
  }
  if (clock != Py_None && PyCallable_Check(clock) == 0) {
    PyErr_Format(PyExc_TypeError, "clock must be callable, not %.200s", Py_TYPE(clock)->tp_name);
    return -1;
  }
  ratelimit::Rules rules;
  rules.enforce_window = enforce_window != 0;
  if (exact != 0) {
    rules.slack = Seconds{0.0};
  }
  RateLimiterObject* self = as_limiter(object);
  self->integer_retry_after = integer_retry_after != 0;
  Py_XSETREF(self->clock, clock == Py_None ? nullptr : Py_NewRef(clock));
  auto state = std::make_unique<LimiterState>(limits, rules);
  state->replaced.reset(self->state);
  self->state = state.release();
  return 0;
}

int limiter_traverse(PyObject* object, visitproc visit, void* arg) {
  RateLimiterObject* self = as_limiter(object);
  Py_VISIT(self->dict);
  Py_VISIT(self->default_config);
  Py_VISIT(self->configs);
  Py_VISIT(self->lines);
  Py_VISIT(self->clock);
  Py_VISIT(Py_TYPE(object));
  return self->state != nullptr ? self->state->ring.traverse(visit, arg) : 0;
}

int limiter_clear(PyObject* object) {
  RateLimiterObject* self = as_limiter(object);
  Py_CLEAR(self->dict);
  Py_CLEAR(self->default_config);
  Py_CLEAR(self->configs);
  Py_CLEAR(self->lines);
  Py_CLEAR(self->clock);
  // The table goes with the ring that its keys live in: what still reaches this object sees an empty limiter.
  self->state->table.clear();
  self->state->ring.clear();
  self->default_config = Py_NewRef(Py_None);
  return 0;
}

void limiter_dealloc(PyObject* object) {
  RateLimiterObject* self = as_limiter(object);
  PyObject_GC_UnTrack(object);
  if (self->weak_references != nullptr) {
    PyObject_ClearWeakRefs(object);
  }
  delete self->state;
  Py_CLEAR(self->dict);
  Py_CLEAR(self->default_config);
  Py_CLEAR(self->configs);
  Py_CLEAR(self->lines);
  Py_CLEAR(self->clock);
  PyTypeObject* type = Py_TYPE(object);
  type->tp_free(object);
  Py_DECREF(type);
}

// ---- buckets as Python sees them: (tokens, last_update, request_count, window_start), times as epoch floats

PyObject* bucket_keys(PyObject* object, PyObject* /*unused*/) {
  const RateLimiterObject* self = as_limiter(object);
  const auto keys = self->state->table.keys();
  Ref list = Ref::steal(PyList_New(static_cast<Py_ssize_t>(keys.size())));
  for (std::size_t i = 0; list && i < keys.size(); ++i) {
    PyObject* key = self->state->ring.to_object(keys[i]);
    if (key == nullptr) {
      return nullptr;
    }
    PyList_SET_ITEM(list.get(), static_cast<Py_ssize_t>(i), key);
  }
  return list.release();
}

PyObject* bucket_get(PyObject* object, PyObject* key) {
  RateLimiterObject* self = as_limiter(object);
  KeyView view;
  Seconds now{0.0};
  if (!read_clock(self, now) || !self->state->ring.resolve_known(key, view)) {
    return nullptr;
  }
  const std::optional<Bucket> bucket = self->state->table.peek(view);
  if (!bucket) {
    Py_RETURN_NONE;
  }
  return Py_BuildValue("(ddId)", bucket->tokens, to_epoch(self, bucket->last_update), bucket->request_count,
                       to_epoch(self, bucket->window_start));
}

PyObject* bucket_put(PyObject* object, PyObject* args) {
  RateLimiterObject* self = as_limiter(object);
  PyObject *key = nullptr, *config = nullptr;
  double tokens = 0.0, last_update = 0.0, window_start = 0.0;
  unsigned int count = 0;
  if (PyArg_ParseTuple(args, "OOddId:_bucket_put", &key, &config, &tokens, &last_update, &count, &window_start) == 0) {
    return nullptr;
  }
  ResolvedConfig resolved;
  Seconds now{0.0};
  KeyView view;
  if (!resolve_config(config, resolved) || !read_clock(self, now) || !self->state->ring.resolve(key, view)) {
    return nullptr;
  }
  const auto reading = [self](double epoch) {
    return self->clock != nullptr ? Seconds{epoch} : self->state->epoch.to_monotonic(Seconds{epoch});
  };
  Bucket bucket(tokens, reading(last_update));
  bucket.window_start = reading(window_start);
  bucket.request_count = count;
  const Result<bool> put = self->state->table.put(view, bucket, resolved.native, now);
  self->state->ring.settle();
  return put ? Py_NewRef(Py_None) : raise(put.error());
}

PyObject* bucket_delete(PyObject* object, PyObject* key) {
  RateLimiterObject* self = as_limiter(object);
  KeyView view;
  if (!self->state->ring.resolve_known(key, view)) {
    return nullptr;
  }
  const bool erased = self->state->table.erase(view);
  self->state->ring.settle();
  return PyBool_FromLong(erased);
}

PyObject* bucket_contains(PyObject* object, PyObject* key) {
  RateLimiterObject* self = as_limiter(object);
  KeyView view;
  if (!self->state->ring.resolve_known(key, view)) {
    return nullptr;
  }
  return PyBool_FromLong(self->state->table.peek(view).has_value());
}

PyObject* bucket_clear(PyObject* object, PyObject* /*unused*/) {
  LimiterState* state = as_limiter(object)->state;
  state->table.clear();
  state->ring.settle();
  Py_RETURN_NONE;
}

PyObject* bucket_count(PyObject* object, PyObject* /*unused*/) {
  return PyLong_FromSize_t(as_limiter(object)->state->table.size());
}

PyObject* sweep(PyObject* object, PyObject* args) {
  RateLimiterObject* self = as_limiter(object);
  unsigned int from = 0, most = 0;
  double idle = 0.0;
  Seconds now{0.0};
  if (PyArg_ParseTuple(args, "IId:_sweep", &from, &most, &idle) == 0 || !read_clock(self, now)) {
    return nullptr;
  }
  const auto next = self->state->table.sweep(from, most, now, Seconds{idle});
  self->state->ring.settle();
  return next ? PyLong_FromUnsignedLong(*next) : Py_NewRef(Py_None);
}

// ---- attributes

PyObject* get_counter(PyObject* object, void* member) {
  const Counters& counters = as_limiter(object)->state->table.counters();
  return PyLong_FromUnsignedLongLong(counters.**static_cast<std::uint64_t Counters::**>(member));
}

int set_counter(PyObject* object, PyObject* value, void* member) {
  const auto number = value != nullptr ? PyLong_AsUnsignedLongLong(value) : 0;
  if (PyErr_Occurred() != nullptr) {
    return -1;
  }
  as_limiter(object)->state->table.counters().**static_cast<std::uint64_t Counters::**>(member) = number;
  return 0;
}

PyObject* get_max_buckets(PyObject* object, void* /*unused*/) {
  const std::size_t bound = as_limiter(object)->state->table.limits().max_buckets;
  return bound == Limits::kUnlimited ? Py_NewRef(Py_None) : PyLong_FromSize_t(bound);
}

PyObject* get_enforce_window(PyObject* object, void* /*unused*/) {
  return PyBool_FromLong(as_limiter(object)->state->table.rules().enforce_window);
}

PyObject* get_memory(PyObject* object, void* /*unused*/) {
  return PyLong_FromSize_t(as_limiter(object)->state->table.memory_bytes());
}

std::uint64_t Counters::*allowed_member = &Counters::allowed;
std::uint64_t Counters::*denied_member = &Counters::denied;
std::uint64_t Counters::*cleaned_member = &Counters::cleaned;
std::uint64_t Counters::*evicted_member = &Counters::evicted;

PyGetSetDef getters[] = {
    {"_allowed", get_counter, set_counter, "Requests admitted.", static_cast<void*>(&allowed_member)},
    {"_denied", get_counter, set_counter, "Requests refused.", static_cast<void*>(&denied_member)},
    {"_cleaned", get_counter, set_counter, "Idle buckets removed.", static_cast<void*>(&cleaned_member)},
    {"evicted", get_counter, nullptr, "int: buckets dropped because the table was at max_buckets.",
     static_cast<void*>(&evicted_member)},
    {"max_buckets", get_max_buckets, nullptr, "int or None: most buckets kept at once.", nullptr},
    {"_enforce_window", get_enforce_window, nullptr, "Whether the window limits requests.", nullptr},
    {"memory_bytes", get_memory, nullptr, "int: bytes that the bucket table holds, key text included.", nullptr},
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, nullptr, nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr}};

PyMemberDef members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(RateLimiterObject, dict), READONLY, nullptr},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(RateLimiterObject, weak_references), READONLY, nullptr},
    {"default_config", T_OBJECT_EX, offsetof(RateLimiterObject, default_config), 0,
     "Configuration of keys without one of their own."},
    {"_configs", T_OBJECT_EX, offsetof(RateLimiterObject, configs), 0, "Mapping of key to configuration."},
    {"_lines", T_OBJECT_EX, offsetof(RateLimiterObject, lines), READONLY, "Keys with callers waiting in acquire()."},
    {nullptr, 0, 0, 0, nullptr}};

PyMethodDef methods[] = {
    {"_bucket_keys", Guarded<bucket_keys>::call, METH_NOARGS, "List of all keys in order of creation."},
    {"_bucket_get", Guarded<bucket_get>::call, METH_O,
     "(tokens, last_update, request_count, window_start) of a key, or None."},
    {"_bucket_put", Guarded<bucket_put>::call, METH_VARARGS,
     "_bucket_put(key, config, tokens, last_update, count, window_start)."},
    {"_bucket_delete", Guarded<bucket_delete>::call, METH_O, "Drop a bucket; True if there was one."},
    {"_bucket_contains", Guarded<bucket_contains>::call, METH_O, "Whether a key has a bucket."},
    {"_bucket_clear", Guarded<bucket_clear>::call, METH_NOARGS, "Drop all buckets."},
    {"_bucket_count", bucket_count, METH_NOARGS, "Number of buckets."},
    {"_sweep", Guarded<sweep>::call, METH_VARARGS,
     "_sweep(from, most, idle_s): remove idle full buckets; next slot, or None at the end."},
    {nullptr, nullptr, 0, nullptr}};

PyType_Slot slots[] = {{Py_tp_new, slot(Guarded<limiter_new>::call)},
                       {Py_tp_init, slot(Guarded<limiter_init, -1>::call)},
                       {Py_tp_dealloc, slot(limiter_dealloc)},
                       {Py_tp_traverse, slot(limiter_traverse)},
                       {Py_tp_clear, slot(limiter_clear)},
                       {Py_tp_getset, getters},
                       {Py_tp_members, members},
                       {Py_tp_methods, methods},
                       {0, nullptr}};

PyType_Spec spec = {"peercore._core.RateLimiter", sizeof(RateLimiterObject), 0,
                    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, slots};

bool add_methods(PyTypeObject* type, PyMethodDef* definitions) {
  for (PyMethodDef* definition = definitions; definition->ml_name != nullptr; ++definition) {
    const Ref descriptor =
        Ref::steal((definition->ml_flags & METH_CLASS) != 0 ? PyDescr_NewClassMethod(type, definition)
                                                            : PyDescr_NewMethod(type, definition));
    if (!descriptor ||
        PyObject_SetAttrString(reinterpret_cast<PyObject*>(type), definition->ml_name, descriptor.get()) < 0) {
      return false;
    }
  }
  return true;
}

}  // namespace

PyTypeObject* rate_limiter_type() noexcept { return type_; }

bool read_clock(RateLimiterObject* self, Seconds& now) {
  if (self->clock == nullptr) [[likely]] {
    LimiterState& state = *self->state;
    now = state.system_clock.monotonic();
    if (state.epoch.stale(now)) [[unlikely]] {
      state.epoch.observe(now, state.system_clock.wall());
    }
    return true;
  }
  const Ref reading = Ref::steal(PyObject_CallNoArgs(self->clock));
  if (!reading) {
    return false;
  }
  now = Seconds{PyFloat_AsDouble(reading.get())};
  return now.count() != -1.0 || PyErr_Occurred() == nullptr;
}

double to_epoch(RateLimiterObject* self, Seconds reading) {
  return (self->clock != nullptr ? reading : self->state->epoch.to_epoch(reading)).count();
}

void register_rate_limiter(pybind11::module_& module) {
  type_ = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&spec));
  if (type_ == nullptr || !add_methods(type_, rate_limit_check_methods) || !init_endpoint_limiter(module)) {
    throw pybind11::error_already_set();
  }
  module.add_object("RateLimiter", reinterpret_cast<PyObject*>(type_));
  add_rate_limit_operations();
}

}  // namespace peercore::bindings

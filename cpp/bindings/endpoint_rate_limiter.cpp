#include "endpoint_rate_limiter.hpp"

#include <structmember.h>

#include <cstddef>

#include "bindings.hpp"
#include "errors.hpp"
#include "native_method.hpp"
#include "override_guard.hpp"
#include "rate_limiter.hpp"

namespace peercore::bindings {
namespace {

/// peercore._core.EndpointLimiter: per-path configurations in front of one limiter. Thread safety: the GIL.
struct EndpointLimiterObject {
  PyObject_HEAD
  PyObject* dict;
  PyObject* weak_references;
  PyObject* default_config;
  PyObject* endpoint_configs;  // path -> config; a dict unless a caller has put something else there
  PyObject* rate_limiter;
};

PyTypeObject* type_ = nullptr;
PyTypeObject* endpoint_type() noexcept { return type_; }

// What v1.2 calls through self: EndpointRateLimiter.get_limit, TokenBucketRateLimiter.check_rate_limit.
OverrideGuard endpoint_guard_;
OverrideGuard limiter_guard_;

EndpointLimiterObject* as_endpoint(PyObject* object) noexcept {
  return reinterpret_cast<EndpointLimiterObject*>(object);
}

bool short_cut_applies(EndpointLimiterObject* self) {
  return self->endpoint_configs != nullptr && self->default_config != nullptr && self->rate_limiter != nullptr &&
         PyDict_CheckExact(self->endpoint_configs) && endpoint_guard_.pristine(Py_TYPE(self), self->dict) &&
         PyObject_TypeCheck(self->rate_limiter, rate_limiter_type()) &&
         limiter_guard_.pristine(Py_TYPE(self->rate_limiter),
                                 reinterpret_cast<RateLimiterObject*>(self->rate_limiter)->dict);
}

// "<client>:<path>" with the text that an f-string would give.
PyObject* make_key(PyObject* client, PyObject* path) {
  return PyUnicode_CheckExact(client) && PyUnicode_CheckExact(path) ? PyUnicode_FromFormat("%U:%U", client, path)
                                                                    : PyUnicode_FromFormat("%S:%S", client, path);
}

Step run_check(PyObject* const* arguments, PyObject** result) {
  EndpointLimiterObject* self = as_endpoint(arguments[0]);
  if (!short_cut_applies(self)) {
    return Step::delegate;
  }
  const Ref key = Ref::steal(make_key(arguments[1], arguments[2]));
  PyObject* own = key ? PyDict_GetItemWithError(self->endpoint_configs, arguments[2]) : nullptr;
  if (own == nullptr && PyErr_Occurred() != nullptr) {
    return Step::raised;
  }
  const Ref config = Ref::share(own != nullptr ? own : self->default_config);
  const Ref limiter = Ref::share(self->rate_limiter);
  *result = check_key(reinterpret_cast<RateLimiterObject*>(limiter.get()), key.get(), config.get(), 1.0);
  return *result != nullptr ? Step::returned : Step::raised;
}

constexpr NativeOperation kCheck{"endpoint_limiter.check",       run_check, nullptr, endpoint_type,
                                 {"client_id", "path", nullptr}, 2,         2};

PyObject* endpoint_new(PyTypeObject* type, PyObject* /*args*/, PyObject* /*kwargs*/) { return type->tp_alloc(type, 0); }

int endpoint_traverse(PyObject* object, visitproc visit, void* arg) {
  EndpointLimiterObject* self = as_endpoint(object);
  Py_VISIT(self->dict);
  Py_VISIT(self->default_config);
  Py_VISIT(self->endpoint_configs);
  Py_VISIT(self->rate_limiter);
  Py_VISIT(Py_TYPE(object));
  return 0;
}

int endpoint_clear(PyObject* object) {
  EndpointLimiterObject* self = as_endpoint(object);
  Py_CLEAR(self->dict);
  Py_CLEAR(self->default_config);
  Py_CLEAR(self->endpoint_configs);
  Py_CLEAR(self->rate_limiter);
  return 0;
}

void endpoint_dealloc(PyObject* object) {
  PyObject_GC_UnTrack(object);
  if (as_endpoint(object)->weak_references != nullptr) {
    PyObject_ClearWeakRefs(object);
  }
  endpoint_clear(object);
  PyTypeObject* type = Py_TYPE(object);
  type->tp_free(object);
  Py_DECREF(type);
}

PyObject* bind(PyObject* type, PyObject* limiter_type) {
  const Ref endpoint_names = Ref::steal(Py_BuildValue("(s)", "get_limit"));
  const Ref limiter_names = Ref::steal(Py_BuildValue("(s)", "check_rate_limit"));
  if (!PyType_Check(limiter_type)) {
    PyErr_SetString(PyExc_TypeError, "_bind takes the limiter's class");
    return nullptr;
  }
  if (!endpoint_names || !limiter_names ||
      !endpoint_guard_.watch(reinterpret_cast<PyTypeObject*>(type), endpoint_names.get()) ||
      !limiter_guard_.watch(reinterpret_cast<PyTypeObject*>(limiter_type), limiter_names.get())) {
    return nullptr;
  }
  Py_RETURN_NONE;
}

PyGetSetDef getters[] = {{"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, nullptr, nullptr},
                         {nullptr, nullptr, nullptr, nullptr, nullptr}};

PyMemberDef members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(EndpointLimiterObject, dict), READONLY, nullptr},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(EndpointLimiterObject, weak_references), READONLY, nullptr},
    {"default_config", T_OBJECT_EX, offsetof(EndpointLimiterObject, default_config), 0,
     "Configuration of paths without one of their own."},
    {"_endpoint_configs", T_OBJECT_EX, offsetof(EndpointLimiterObject, endpoint_configs), 0,
     "Mapping of path to configuration."},
    {"_rate_limiter", T_OBJECT_EX, offsetof(EndpointLimiterObject, rate_limiter), 0,
     "The limiter that holds the buckets."},
    {nullptr, 0, 0, 0, nullptr}};

PyMethodDef methods[] = {
    {"_bind", bind, METH_O | METH_CLASS, "Note what get_limit, and the limiter class's check_rate_limit, mean."},
    {nullptr, nullptr, 0, nullptr}};

PyType_Slot slots[] = {{Py_tp_new, slot(endpoint_new)},
                       {Py_tp_dealloc, slot(endpoint_dealloc)},
                       {Py_tp_traverse, slot(endpoint_traverse)},
                       {Py_tp_clear, slot(endpoint_clear)},
                       {Py_tp_getset, getters},
                       {Py_tp_members, members},
                       {Py_tp_methods, methods},
                       {0, nullptr}};

PyType_Spec spec = {"peercore._core.EndpointLimiter", sizeof(EndpointLimiterObject), 0,
                    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, slots};

}  // namespace

bool init_endpoint_limiter(pybind11::module_& module) {
  type_ = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&spec));
  if (type_ == nullptr) {
    return false;
  }
  module.add_object("EndpointLimiter", reinterpret_cast<PyObject*>(type_));
  add_operation(kCheck);
  return true;
}

}  // namespace peercore::bindings

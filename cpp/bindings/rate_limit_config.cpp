#include "rate_limit_config.hpp"

#include <cstddef>
#include <initializer_list>

#include "bindings.hpp"
#include "errors.hpp"

namespace peercore::bindings {
namespace {

using ratelimit::BucketConfig;

PyTypeObject* type_ = nullptr;

// Interned keys of the info dict.
struct InfoKeys {
  PyObject* limit;
  PyObject* remaining;
  PyObject* reset_at;
  PyObject* window;
  PyObject* retry_after;
};
InfoKeys keys_{};

RateLimitConfigObject* as_config(PyObject* object) noexcept { return reinterpret_cast<RateLimitConfigObject*>(object); }

// The numeric value of a field, or false with an error that names the field.
bool to_number(PyObject* value, const char* field, double& out) {
  out = PyFloat_AsDouble(value);
  if (out != -1.0 || PyErr_Occurred() == nullptr) {
    return true;
  }
  if (PyErr_ExceptionMatches(PyExc_TypeError) != 0) {
    PyErr_Format(PyExc_TypeError, "%s must be a number, not %.200s", field, Py_TYPE(value)->tp_name);
  } else if (PyErr_ExceptionMatches(PyExc_OverflowError) != 0) {
    PyErr_Format(PyExc_ValueError, "%s is too large", field);
  }
  return false;
}

// Adds the values that were refused to the core's message, which names the field and the rule.
std::nullptr_t raise_refused(const Error& error, PyObject* rpm, PyObject* burst, PyObject* window) {
  PyErr_Format(exception_class(error.code), "%s (requests_per_minute=%R, burst_size=%R, window_seconds=%R)",
               error.message().c_str(), rpm, burst, window);
  return nullptr;
}

struct Numbers {
  double rpm = 0.0;
  double burst = 0.0;
  double window = 0.0;
};

bool read_numbers(PyObject* rpm, PyObject* burst, PyObject* window, Numbers& out) {
  return to_number(rpm, "requests_per_minute", out.rpm) && to_number(burst, "burst_size", out.burst) &&
         to_number(window, "window_seconds", out.window);
}

void clear_kit(InfoKit& kit) {
  Py_CLEAR(kit.model);
  Py_CLEAR(kit.recent[0]);
  Py_CLEAR(kit.recent[1]);
}

// Takes on the three fields together, or refuses and leaves the object as it was.
bool take_on(RateLimitConfigObject* self, PyObject* rpm, PyObject* burst, PyObject* window, bool validate) {
  Numbers numbers;
  if (!read_numbers(rpm, burst, window, numbers)) {
    return false;
  }
  if (validate) {
    const Result<BucketConfig> made = BucketConfig::make(numbers.rpm, numbers.burst, numbers.window);
    if (!made) {
      raise_refused(made.error(), rpm, burst, window);
      return false;
    }
  }
  self->native = BucketConfig::make_unchecked(numbers.rpm, numbers.burst, numbers.window);
  if (self->refill_rate != nullptr) {
    self->native.refill_rate = PyFloat_AS_DOUBLE(self->refill_rate);
  }
  Py_XSETREF(self->requests_per_minute, Py_NewRef(rpm));
  Py_XSETREF(self->burst_size, Py_NewRef(burst));
  Py_XSETREF(self->window_seconds, Py_NewRef(window));
  clear_kit(self->allowed);
  clear_kit(self->denied);
  return true;
}

// The object for a caller of its attributes, its fields at their defaults as long as nobody has set them. They are
// filled in here and not by a tp_new, so that `object.__new__` may make one: pickles of protocol 0 and 1 do. Null with
// an error.
RateLimitConfigObject* ready(PyObject* object) {
  RateLimitConfigObject* self = as_config(object);
  if (self->requests_per_minute == nullptr) {
    const Ref rpm = Ref::steal(PyLong_FromLong(60));
    const Ref burst = Ref::steal(PyLong_FromLong(10));
    const Ref window = Ref::steal(PyLong_FromLong(60));
    if (!rpm || !burst || !window || !take_on(self, rpm.get(), burst.get(), window.get(), false)) {
      return nullptr;
    }
  }
  return self;
}

bool refuse_delete(PyObject* value, const char* field) {
  if (value == nullptr) {
    PyErr_Format(PyExc_AttributeError, "%s cannot be deleted", field);
  }
  return value == nullptr;
}

PyObject* get_rpm(PyObject* object, void* /*unused*/) {
  const RateLimitConfigObject* self = ready(object);
  return self != nullptr ? Py_NewRef(self->requests_per_minute) : nullptr;
}

PyObject* get_burst(PyObject* object, void* /*unused*/) {
  const RateLimitConfigObject* self = ready(object);
  return self != nullptr ? Py_NewRef(self->burst_size) : nullptr;
}

PyObject* get_window(PyObject* object, void* /*unused*/) {
  const RateLimitConfigObject* self = ready(object);
  return self != nullptr ? Py_NewRef(self->window_seconds) : nullptr;
}

int set_rpm(PyObject* object, PyObject* value, void* /*unused*/) {
  RateLimitConfigObject* self = ready(object);
  if (self == nullptr) {
    return -1;
  }
  if (refuse_delete(value, "requests_per_minute")) {
    return -1;
  }
  const Ref by_hand = Ref::steal(std::exchange(self->refill_rate, nullptr));  // the rate follows from here on
  if (take_on(self, value, self->burst_size, self->window_seconds, self->validated)) {
    return 0;
  }
  self->refill_rate = Py_XNewRef(by_hand.get());
  return -1;
}

int set_burst(PyObject* object, PyObject* value, void* /*unused*/) {
  RateLimitConfigObject* self = ready(object);
  if (self == nullptr) {
    return -1;
  }
  return !refuse_delete(value, "burst_size") &&
                 take_on(self, self->requests_per_minute, value, self->window_seconds, self->validated)
             ? 0
             : -1;
}

int set_window(PyObject* object, PyObject* value, void* /*unused*/) {
  RateLimitConfigObject* self = ready(object);
  if (self == nullptr) {
    return -1;
  }
  return !refuse_delete(value, "window_seconds") &&
                 take_on(self, self->requests_per_minute, self->burst_size, value, self->validated)
             ? 0
             : -1;
}

PyObject* get_refill_rate(PyObject* object, void* /*unused*/) {
  const RateLimitConfigObject* self = ready(object);
  if (self == nullptr) {
    return nullptr;
  }
  if (self->refill_rate != nullptr) {
    return Py_NewRef(self->refill_rate);
  }
  const Ref sixty = Ref::steal(PyFloat_FromDouble(60.0));
  return sixty ? PyNumber_TrueDivide(self->requests_per_minute, sixty.get()) : nullptr;
}

int set_refill_rate(PyObject* object, PyObject* value, void* /*unused*/) {
  RateLimitConfigObject* self = ready(object);
  if (self == nullptr) {
    return -1;
  }
  double rate = 0.0;
  if (value != nullptr) {
    if (!to_number(value, "refill_rate", rate)) {
      return -1;
    }
    if (!(rate >= 0.0) && self->validated) {
      PyErr_Format(PyExc_ValueError, "refill_rate must be at least 0, got %R", value);
      return -1;
    }
    Py_XSETREF(self->refill_rate, PyFloat_FromDouble(rate >= 0.0 ? rate : 0.0));
  } else {
    Py_CLEAR(self->refill_rate);
  }
  return take_on(self, self->requests_per_minute, self->burst_size, self->window_seconds, false) ? 0 : -1;
}

PyObject* get_validated(PyObject* object, void* /*unused*/) { return PyBool_FromLong(as_config(object)->validated); }

int set_validated(PyObject* object, PyObject* value, void* /*unused*/) {
  RateLimitConfigObject* self = ready(object);
  if (self == nullptr) {
    return -1;
  }
  const int wanted = value != nullptr ? PyObject_IsTrue(value) : 0;
  if (wanted < 0 || !take_on(self, self->requests_per_minute, self->burst_size, self->window_seconds, wanted == 1)) {
    return -1;
  }
  self->validated = wanted == 1;
  return 0;
}

// ---- life

int config_traverse(PyObject* object, visitproc visit, void* arg) {
  RateLimitConfigObject* self = as_config(object);
  Py_VISIT(self->requests_per_minute);
  Py_VISIT(self->burst_size);
  Py_VISIT(self->window_seconds);
  Py_VISIT(self->refill_rate);
  for (const InfoKit* kit : {&self->allowed, &self->denied}) {
    Py_VISIT(kit->model);
    Py_VISIT(kit->recent[0]);
    Py_VISIT(kit->recent[1]);
  }
  Py_VISIT(Py_TYPE(object));
  return 0;
}

int config_clear(PyObject* object) {
  RateLimitConfigObject* self = as_config(object);
  clear_kit(self->allowed);
  clear_kit(self->denied);
  return 0;
}

void config_dealloc(PyObject* object) {
  RateLimitConfigObject* self = as_config(object);
  PyObject_GC_UnTrack(object);
  config_clear(object);
  Py_CLEAR(self->requests_per_minute);
  Py_CLEAR(self->burst_size);
  Py_CLEAR(self->window_seconds);
  Py_CLEAR(self->refill_rate);
  PyTypeObject* type = Py_TYPE(object);
  type->tp_free(object);
  Py_DECREF(type);
}

PyGetSetDef getters[] = {{"_requests_per_minute", get_rpm, set_rpm, "Sustained rate.", nullptr},
                         {"_burst_size", get_burst, set_burst, "Tokens a full bucket holds.", nullptr},
                         {"_window_seconds", get_window, set_window, "Length of the reporting window.", nullptr},
                         {"refill_rate", get_refill_rate, set_refill_rate,
                          "float: tokens per second, requests_per_minute / 60 unless set by hand since.", nullptr},
                         {"_validated", get_validated, set_validated,
                          "Whether fields are checked; setting it to True checks them now.", nullptr},
                         {nullptr, nullptr, nullptr, nullptr, nullptr}};

PyType_Slot slots[] = {{Py_tp_dealloc, slot(config_dealloc)},
                       {Py_tp_traverse, slot(config_traverse)},
                       {Py_tp_clear, slot(config_clear)},
                       {Py_tp_getset, getters},
                       {0, nullptr}};

PyType_Spec spec = {"peercore._core.RateLimitConfigBase", sizeof(RateLimitConfigObject), 0,
                    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, slots};

// The dataclass derives from the native type directly. A class derived from it may have turned a field into a property,
// so it is read through its attributes.
bool is_the_dataclass(PyObject* config) noexcept { return Py_TYPE(config)->tp_base == type_; }

bool resolve_by_attributes(PyObject* config, ResolvedConfig& out) {
  out.limit = Ref::steal(PyObject_GetAttrString(config, "requests_per_minute"));
  const Ref burst = out.limit ? Ref::steal(PyObject_GetAttrString(config, "burst_size")) : Ref();
  out.window = burst ? Ref::steal(PyObject_GetAttrString(config, "window_seconds")) : Ref();
  Numbers numbers;
  if (!out.window || !read_numbers(out.limit.get(), burst.get(), out.window.get(), numbers)) {
    return false;
  }
  out.native = BucketConfig::make_unchecked(numbers.rpm, numbers.burst, numbers.window);
  const Ref rate = Ref::steal(PyObject_GetAttrString(config, "refill_rate"));
  if (!rate) {
    PyErr_Clear();
    return true;
  }
  if (!to_number(rate.get(), "refill_rate", out.native.refill_rate)) {
    return false;
  }
  if (!(out.native.refill_rate >= 0.0)) {
    out.native.refill_rate = 0.0;
  }
  return true;
}

// The places of the values that change stand in the model already, so that a copy has its final size and order.
PyObject* make_model(PyObject* limit, PyObject* window, bool admitted) {
  Ref info = Ref::steal(PyDict_New());
  if (!info || PyDict_SetItem(info.get(), keys_.limit, limit) < 0 ||
      PyDict_SetItem(info.get(), keys_.remaining, Py_None) < 0 ||
      PyDict_SetItem(info.get(), keys_.reset_at, Py_None) < 0 || PyDict_SetItem(info.get(), keys_.window, window) < 0 ||
      (!admitted && PyDict_SetItem(info.get(), keys_.retry_after, Py_None) < 0)) {
    return nullptr;
  }
  return info.release();
}

bool fill(PyObject* info, const InfoValues& values) {
  return PyDict_SetItem(info, keys_.remaining, values.remaining.get()) == 0 &&
         PyDict_SetItem(info, keys_.reset_at, values.reset_at.get()) == 0 &&
         (!values.retry_after || PyDict_SetItem(info, keys_.retry_after, values.retry_after.get()) == 0);
}

// What tells that nobody has changed a dict since: up to CPython 3.11 it counts its changes. 0 where it does not.
std::uint64_t version_of([[maybe_unused]] PyObject* dict) noexcept {
#if PY_VERSION_HEX < 0x030C0000
  return reinterpret_cast<PyDictObject*>(dict)->ma_version_tag;
#else
  return 0;
#endif
}

// Whether a dict that a caller had is, once filled, what a new one would be: it may have been changed meanwhile.
bool filled_as_new(PyObject* info, PyObject* limit, PyObject* window, const InfoValues& values) {
  return PyDict_GetItemWithError(info, keys_.limit) == limit && PyDict_GetItemWithError(info, keys_.window) == window &&
         fill(info, values) && PyDict_GET_SIZE(info) == (values.retry_after ? 5 : 4);
}

bool reuse(PyObject* info, std::uint64_t version, PyObject* limit, PyObject* window, const InfoValues& values) {
  return version != 0 && version_of(info) == version ? fill(info, values) : filled_as_new(info, limit, window, values);
}

PyObject* info_from(InfoKit& kit, PyObject* limit, PyObject* window, const InfoValues& values) {
  for (int i = 0; i < 2; ++i) {
    PyObject* recent = kit.recent[i];
    if (recent != nullptr && Py_REFCNT(recent) == 1 && reuse(recent, kit.version[i], limit, window, values)) {
      kit.version[i] = version_of(recent);
      return Py_NewRef(recent);
    }
  }
  if (kit.model == nullptr) {
    kit.model = make_model(limit, window, !values.retry_after);
  }
  Ref info = kit.model != nullptr ? Ref::steal(PyDict_Copy(kit.model)) : Ref();
  if (!info || !fill(info.get(), values)) {
    return nullptr;
  }
  kit.turn ^= 1U;
  Py_XSETREF(kit.recent[kit.turn], Py_NewRef(info.get()));
  kit.version[kit.turn] = version_of(info.get());
  return info.release();
}

}  // namespace

bool resolve_config(PyObject* config, ResolvedConfig& out) {
  if (is_the_dataclass(config)) [[likely]] {
    out.object = as_config(config)->requests_per_minute != nullptr ? as_config(config) : ready(config);
    if (out.object == nullptr) {
      return false;
    }
    out.native = out.object->native;
    return true;
  }
  return resolve_by_attributes(config, out);
}

PyObject* make_info(const ResolvedConfig& config, const InfoValues& values) {
  if (RateLimitConfigObject* object = config.object) [[likely]] {
    return info_from(values.retry_after ? object->denied : object->allowed, object->requests_per_minute,
                     object->window_seconds, values);
  }
  Ref info = Ref::steal(make_model(config.limit.get(), config.window.get(), !values.retry_after));
  return info && fill(info.get(), values) ? info.release() : nullptr;
}

void register_rate_limit_config(pybind11::module_& module) {
  keys_ = {PyUnicode_InternFromString("limit"), PyUnicode_InternFromString("remaining"),
           PyUnicode_InternFromString("reset_at"), PyUnicode_InternFromString("window"),
           PyUnicode_InternFromString("retry_after")};
  type_ = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&spec));
  if (type_ == nullptr) {
    throw pybind11::error_already_set();
  }
  module.add_object("RateLimitConfigBase", reinterpret_cast<PyObject*>(type_));
}

}  // namespace peercore::bindings

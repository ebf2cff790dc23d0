// The hot path: from a key to an answer, in one call and without leaving the GIL.
#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

#include "errors.hpp"
#include "native_method.hpp"
#include "override_guard.hpp"
#include "rate_limit_config.hpp"
#include "rate_limiter.hpp"

namespace peercore::bindings {
namespace {

using ratelimit::BucketTable;
using ratelimit::Decision;

// Watches TokenBucketRateLimiter.get_config, which v1.2 calls through self.
OverrideGuard guard_;

RateLimiterObject* as_limiter(PyObject* object) noexcept { return reinterpret_cast<RateLimiterObject*>(object); }

// ---- arguments

bool read_cost(PyObject* argument, double& cost) {
  cost = 1.0;
  if (argument == nullptr) [[likely]] {
    return true;
  }
  if (!PyLong_Check(argument)) {
    PyErr_Format(PyExc_TypeError, "cost must be an int, not %.200s", Py_TYPE(argument)->tp_name);
    return false;
  }
  const long value = PyLong_AsLong(argument);
  if (value < 1 || value > std::numeric_limits<std::int32_t>::max()) {
    PyErr_Clear();
    PyErr_Format(PyExc_ValueError, "cost must be between 1 and 2147483647, got %R", argument);
    return false;
  }
  cost = static_cast<double>(value);
  return true;
}

// The configuration for a key as v1.2 finds it: the argument when truthy, else get_config(key). New reference.
Ref config_for(RateLimiterObject* self, PyObject* key, PyObject* argument) {
  if (argument != nullptr && argument != Py_None) {
    const int truthy = PyObject_IsTrue(argument);
    if (truthy != 0) {
      return truthy > 0 ? Ref::share(argument) : Ref();
    }
  }
  PyObject* object = reinterpret_cast<PyObject*>(self);
  if (!guard_.pristine(Py_TYPE(object), self->dict) || !PyDict_CheckExact(self->configs) ||
      self->default_config == nullptr) [[unlikely]] {
    const Ref get_config = Ref::steal(PyObject_GetAttrString(object, "get_config"));
    return get_config ? Ref::steal(PyObject_CallOneArg(get_config.get(), key)) : Ref();
  }
  if (PyDict_GET_SIZE(self->configs) != 0) {
    if (PyObject* own = PyDict_GetItemWithError(self->configs, key)) {
      return Ref::share(own);
    }
    if (PyErr_Occurred() != nullptr) {
      return {};
    }
  }
  return Ref::share(self->default_config);
}

// Callers waiting in acquire() come first: while a key has a line, nobody else takes its tokens.
bool has_line(RateLimiterObject* self, PyObject* key, bool& line) {
  line = false;
  if (PyDict_GET_SIZE(self->lines) == 0) [[likely]] {
    return true;
  }
  const Ref found = Ref::share(PyDict_GetItemWithError(self->lines, key));
  if (!found) {
    return PyErr_Occurred() == nullptr;
  }
  const Ref stands = Ref::steal(PyObject_CallMethod(found.get(), "stands", nullptr));
  const int truth = stands ? PyObject_IsTrue(stands.get()) : -1;
  line = truth > 0;
  return truth >= 0;
}

// ---- judging

// One request with everything that could run Python code already done.
struct Request {
  KeyView key;
  ResolvedConfig config;
  Ref config_object;
  Seconds now{0.0};
  bool timed = false;  ///< `now` has been read
  double cost = 1.0;
  bool line = false;

  // More than any bucket holds: judged like every request, and refused.
  [[nodiscard]] double asked() const noexcept { return line ? std::numeric_limits<double>::infinity() : cost; }
};

// A clock callable runs before the key enters the ring, because it may use this limiter itself.
bool read_callable_clock(RateLimiterObject* self, Request& request) {
  if (self->clock != nullptr && !request.timed) [[unlikely]] {
    request.timed = read_clock(self, request.now);
    return request.timed;
  }
  return true;
}

void read_machine_clock(RateLimiterObject* self, Request& request) {
  if (!request.timed) {
    request.timed = read_clock(self, request.now);
  }
}

// The key comes last: entering the ring is the one step that has to be undone when a later one fails.
bool prepare(RateLimiterObject* self, PyObject* key, PyObject* config, Request& request) {
  request.config_object = config_for(self, key, config);
  return request.config_object && resolve_config(request.config_object.get(), request.config) &&
         has_line(self, key, request.line) && read_callable_clock(self, request) &&
         self->state->ring.resolve(key, request.key);
}

// A refused key is in no table; an object in the ring must not stay behind for it.
std::nullptr_t refuse(RateLimiterObject* self, const Request& request, const Error& error) {
  if (!self->state->table.peek(request.key)) {
    self->state->ring.forget(request.key);
    self->state->ring.settle();
  }
  return raise(error);
}

// ---- the info dict

PyObject* retry_after(const RateLimiterObject* self, const Request& request, const Decision& decision) {
  const auto& config = request.config.native;
  const auto& rules = self->state->table.rules();
  if (self->integer_retry_after) {
    return PyLong_FromLongLong(ratelimit::integer_retry_after(decision.bucket, config, rules, request.cost));
  }
  constexpr double kLeast = 0.1;  // a line of waiters holds tokens that are already there
  const Seconds wait = ratelimit::wait_for(decision.bucket, config, rules, request.cost);
  return PyFloat_FromDouble(std::max(ratelimit::round_up_to_tenth(wait), kLeast));
}

PyObject* make_answer(RateLimiterObject* self, const Request& request, const Decision& decision) {
  const auto remaining = decision.admitted ? static_cast<long>(std::max(decision.bucket.tokens, 0.0)) : 0L;
  const double reset_at = to_epoch(self, decision.bucket.window_start) + request.config.native.window.count();
  InfoValues values;
  values.remaining = Ref::steal(PyLong_FromLong(remaining));
  values.reset_at = Ref::steal(PyFloat_FromDouble(reset_at));
  if (!decision.admitted) {
    values.retry_after = Ref::steal(retry_after(self, request, decision));
  }
  if (!values.remaining || !values.reset_at || (!decision.admitted && !values.retry_after)) {
    return nullptr;
  }
  Ref info = Ref::steal(make_info(request.config, values));
  PyObject* answer = info ? PyTuple_New(2) : nullptr;
  if (answer != nullptr) {
    PyTuple_SET_ITEM(answer, 0, Py_NewRef(decision.admitted ? Py_True : Py_False));
    PyTuple_SET_ITEM(answer, 1, info.release());
  }
  return answer;
}

// ---- answers

PyObject* admit(RateLimiterObject* self, const Request& request) {
  const Result<bool> admitted =
      self->state->table.admit(request.key, request.config.native, request.now, request.asked());
  if (!admitted) {
    return refuse(self, request, admitted.error());
  }
  self->state->ring.settle();
  return Py_NewRef(admitted.value() ? Py_True : Py_False);
}

PyObject* allow_key(RateLimiterObject* self, PyObject* key, double cost) {
  Request request;
  request.cost = cost;
  if (!prepare(self, key, nullptr, request)) {
    return nullptr;
  }
  if (!request.timed && self->state->table.admit_early(request.key, request.config.native,
                                                       SystemClock::coarse_monotonic(), request.asked())) {
    return Py_NewRef(Py_True);
  }
  read_machine_clock(self, request);
  return admit(self, request);
}

// All at the time of the call: one reading of the clock serves them all.
PyObject* allow_keys(RateLimiterObject* self, PyObject* keys, double cost) {
  if (PyUnicode_Check(keys)) {
    PyErr_SetString(PyExc_TypeError, "keys must be an iterable of keys, not one str");
    return nullptr;
  }
  const Ref sequence = Ref::steal(PySequence_Tuple(keys));
  Seconds now{0.0};
  if (!sequence || !read_clock(self, now)) {
    return nullptr;
  }
  const Py_ssize_t count = PyTuple_GET_SIZE(sequence.get());
  Ref answers = Ref::steal(PyList_New(count));
  for (Py_ssize_t i = 0; answers && i < count; ++i) {
    Request request;
    request.cost = cost;
    request.now = now;
    request.timed = true;
    PyObject* answer =
        prepare(self, PyTuple_GET_ITEM(sequence.get(), i), nullptr, request) ? admit(self, request) : nullptr;
    if (answer == nullptr) {
      return nullptr;
    }
    PyList_SET_ITEM(answers.get(), i, answer);
  }
  return answers.release();
}

Step answered(PyObject* answer, PyObject** result) noexcept {
  *result = answer;
  return answer != nullptr ? Step::returned : Step::raised;
}

Step run_check(PyObject* const* arguments, PyObject** result) {
  double cost = 1.0;
  return answered(
      read_cost(arguments[3], cost) ? check_key(as_limiter(arguments[0]), arguments[1], arguments[2], cost) : nullptr,
      result);
}

Step run_allow(PyObject* const* arguments, PyObject** result) {
  double cost = 1.0;
  return answered(read_cost(arguments[2], cost) ? allow_key(as_limiter(arguments[0]), arguments[1], cost) : nullptr,
                  result);
}

Step run_check_many(PyObject* const* arguments, PyObject** result) {
  double cost = 1.0;
  return answered(read_cost(arguments[2], cost) ? allow_keys(as_limiter(arguments[0]), arguments[1], cost) : nullptr,
                  result);
}

// The bucket's memory is on its way while the interpreter gets from the call to the await. A str that was hashed before
// is the only key whose hash can be had without running code.
void expect_key(PyObject* const* arguments) {
  PyObject* key = arguments[1];
  if (PyUnicode_CheckExact(key) && reinterpret_cast<PyASCIIObject*>(key)->hash != -1) [[likely]] {
    const auto* text = reinterpret_cast<const char*>(reinterpret_cast<PyASCIIObject*>(key) + 1);
    __builtin_prefetch(text + PyUnicode_GET_LENGTH(key));  // its head is loaded already, the end may be a cache line on
    as_limiter(arguments[0])
        ->state->table.prefetch(static_cast<std::uint64_t>(reinterpret_cast<PyASCIIObject*>(key)->hash));
  }
}

constexpr NativeOperation kCheck{"rate_limiter.check_rate_limit",
                                 Guarded<run_check, Step::raised>::call,
                                 expect_key,
                                 rate_limiter_type,
                                 {"key", "config", "cost"},
                                 1,
                                 2};
constexpr NativeOperation kAllow{"rate_limiter.allow",
                                 Guarded<run_allow, Step::raised>::call,
                                 expect_key,
                                 rate_limiter_type,
                                 {"key", "cost", nullptr},
                                 1,
                                 2};
constexpr NativeOperation kCheckMany{"rate_limiter.check_many",
                                     Guarded<run_check_many, Step::raised>::call,
                                     nullptr,
                                     rate_limiter_type,
                                     {"keys", "cost", nullptr},
                                     1,
                                     2};

// ---- the same without a coroutine

// Lays out (name[, second[, third]]) given by position or keyword; `names` ends with null.
bool place(PyObject* const* args, Py_ssize_t count, PyObject* keywords, const char* const* names, PyObject** placed) {
  Py_ssize_t known = 0;
  while (names[known] != nullptr) {
    ++known;
  }
  if (count > known) {
    PyErr_Format(PyExc_TypeError, "takes at most %zd arguments (%zd given)", known, count);
    return false;
  }
  std::copy_n(args, count, placed);
  const Py_ssize_t named = keywords != nullptr ? PyTuple_GET_SIZE(keywords) : 0;
  for (Py_ssize_t i = 0; i < named; ++i) {
    PyObject* keyword = PyTuple_GET_ITEM(keywords, i);
    const auto* found = std::find_if(names, names + known, [keyword](const char* name) {
      return PyUnicode_CompareWithASCIIString(keyword, name) == 0;
    });
    if (found == names + known || placed[found - names] != nullptr) {
      PyErr_Format(PyExc_TypeError, "unexpected or repeated argument %R", keyword);
      return false;
    }
    placed[found - names] = args[count + i];
  }
  if (placed[0] == nullptr) {
    PyErr_Format(PyExc_TypeError, "missing required argument '%s'", names[0]);
    return false;
  }
  return true;
}

PyObject* check_now(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  static constexpr const char* kNames[] = {"key", "config", "cost", nullptr};
  PyObject* placed[3] = {};
  double cost = 1.0;
  if (!place(args, count, keywords, kNames, placed) || !read_cost(placed[2], cost)) {
    return nullptr;
  }
  return check_key(as_limiter(self), placed[0], placed[1], cost);
}

PyObject* allow_now(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  static constexpr const char* kNames[] = {"key", "cost", nullptr};
  PyObject* placed[2] = {};
  double cost = 1.0;
  if (!place(args, count, keywords, kNames, placed) || !read_cost(placed[1], cost)) {
    return nullptr;
  }
  return allow_key(as_limiter(self), placed[0], cost);
}

PyObject* check_many_now(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  static constexpr const char* kNames[] = {"keys", "cost", nullptr};
  PyObject* placed[2] = {};
  double cost = 1.0;
  if (!place(args, count, keywords, kNames, placed) || !read_cost(placed[1], cost)) {
    return nullptr;
  }
  return allow_keys(as_limiter(self), placed[0], cost);
}

// For acquire(): takes the tokens and returns 0.0, or returns how many seconds until they are there.
PyObject* take(PyObject* object, PyObject* const* args, Py_ssize_t count) {
  RateLimiterObject* self = as_limiter(object);
  Request request;
  if (count != 2) {
    PyErr_SetString(PyExc_TypeError, "_take(key, cost)");
    return nullptr;
  }
  if (!read_cost(args[1], request.cost) || !prepare(self, args[0], nullptr, request)) {
    return nullptr;
  }
  read_machine_clock(self, request);
  const Result<Seconds> wait = self->state->table.take(request.key, request.config.native, request.now, request.cost);
  if (!wait) {
    return refuse(self, request, wait.error());
  }
  self->state->ring.settle();
  return PyFloat_FromDouble(wait.value().count());
}

// For acquire(): the taker was cancelled before it could use its tokens.
PyObject* give_back(PyObject* object, PyObject* const* args, Py_ssize_t count) {
  RateLimiterObject* self = as_limiter(object);
  Request request;
  if (count != 2) {
    PyErr_SetString(PyExc_TypeError, "_give_back(key, cost)");
    return nullptr;
  }
  request.config_object = config_for(self, args[0], nullptr);
  if (!read_cost(args[1], request.cost) || !request.config_object ||
      !resolve_config(request.config_object.get(), request.config) ||
      !self->state->ring.resolve_known(args[0], request.key)) {
    return nullptr;
  }
  self->state->table.give_back(request.key, request.config.native, request.cost);
  Py_RETURN_NONE;
}

// Called once, when TokenBucketRateLimiter has been defined.
PyObject* bind(PyObject* type, PyObject* /*unused*/) {
  const Ref names = Ref::steal(Py_BuildValue("(s)", "get_config"));
  if (!names || !guard_.watch(reinterpret_cast<PyTypeObject*>(type), names.get())) {
    return nullptr;
  }
  Py_RETURN_NONE;
}

}  // namespace

PyObject* check_key(RateLimiterObject* self, PyObject* key, PyObject* config, double cost) {
  Request request;
  request.cost = cost;
  if (!prepare(self, key, config, request)) {
    return nullptr;
  }
  BucketTable& table = self->state->table;
  if (!request.timed) {
    const auto early = table.check_early(request.key, request.config.native, SystemClock::coarse_monotonic(),
                                         SystemClock::kCoarseLag, request.asked());
    if (early) {
      return make_answer(self, request, *early);
    }
  }
  read_machine_clock(self, request);
  const Result<Decision> decision = table.check(request.key, request.config.native, request.now, request.asked());
  if (!decision) {
    return refuse(self, request, decision.error());
  }
  self->state->ring.settle();
  return make_answer(self, request, decision.value());
}

PyMethodDef rate_limit_check_methods[] = {
    {"check_now", method(Guarded<check_now>::call), METH_FASTCALL | METH_KEYWORDS,
     "check_now($self, /, key, config=None, cost=1)\n--\n\n"
     "check_rate_limit without the await: (allowed, info) for one request. Never waits; safe from any thread."},
    {"allow_now", method(Guarded<allow_now>::call), METH_FASTCALL | METH_KEYWORDS,
     "allow_now($self, /, key, cost=1)\n--\n\n"
     "Take `cost` tokens (int, 1 or more) from the key's bucket; True if they were there. Never waits; safe from any "
     "thread.\n"
     "TypeError for an unhashable key, ValueError for a cost below 1."},
    {"check_many_now", method(Guarded<check_many_now>::call), METH_FASTCALL | METH_KEYWORDS,
     "check_many_now($self, /, keys, cost=1)\n--\n\n"
     "allow_now for each of an iterable of keys, at one reading of the clock; list of bool in the same order."},
    {"_take", method(Guarded<take>::call), METH_FASTCALL,
     "_take(key, cost): 0.0 after taking the tokens, else the seconds until they are there."},
    {"_give_back", method(Guarded<give_back>::call), METH_FASTCALL, "_give_back(key, cost): undo a _take."},
    {"_bind", bind, METH_NOARGS | METH_CLASS, "Note what get_config means in this class."},
    {nullptr, nullptr, 0, nullptr}};

void add_rate_limit_operations() {
  add_operation(kCheck);
  add_operation(kAllow);
  add_operation(kCheckMany);
}

}  // namespace peercore::bindings

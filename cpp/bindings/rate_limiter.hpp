#pragma once

#include <memory>

#include "key.hpp"
#include "peercore/base/clock.hpp"
#include "peercore/ratelimit/bucket_table.hpp"
#include "python_api.hpp"

namespace peercore::bindings {

/// The C++ half of a limiter, made by tp_new and gone with the object.
struct LimiterState {
  LimiterState(const Limits& limits, const ratelimit::Rules& rules) : table(limits, rules) {
    table.on_erase([](void* context, const KeyView& key) { static_cast<KeyRing*>(context)->forget(key); }, &ring);
  }
  LimiterState(const LimiterState&) = delete;
  LimiterState& operator=(const LimiterState&) = delete;

  ratelimit::BucketTable table;
  KeyRing ring;
  SystemClock system_clock;
  EpochMap epoch;
  /// What a second __init__ replaced. Kept, because that __init__ may have been called from a key's own `__eq__`.
  std::unique_ptr<LimiterState> replaced;
};

/// peercore._core.RateLimiter: base of TokenBucketRateLimiter.
///
/// Thread safety: the GIL. No method gives it up between reading a bucket and writing it; user code (a clock callable,
/// `__hash__` of a key) runs before the table is touched.
struct RateLimiterObject {
  PyObject_HEAD
  PyObject* dict;
  PyObject* weak_references;
  PyObject* default_config;
  PyObject* configs;  // key -> config; a dict unless a caller has put something else there
  PyObject* lines;    // dict: keys that have callers waiting in acquire()
  PyObject* clock;    // callable, or null for the machine's clocks
  bool integer_retry_after;
  LimiterState* state;
};

[[nodiscard]] PyTypeObject* rate_limiter_type() noexcept;

/// One reading of the limiter's clock. False with a Python error set (a clock callable that raised).
[[nodiscard]] bool read_clock(RateLimiterObject* self, Seconds& now);
/// The epoch time at which callers see a reading.
[[nodiscard]] double to_epoch(RateLimiterObject* self, Seconds reading);

/// Judges one request for `key` under `config` (null: the limiter's own choice) and makes what check_rate_limit
/// returns, `(bool, info)`. New reference, or null with a Python error set.
[[nodiscard]] PyObject* check_key(RateLimiterObject* self, PyObject* key, PyObject* config, double cost);

/// METH_FASTCALL methods of the type and the operations behind its coroutine methods (rate_limit_checks.cpp).
extern PyMethodDef rate_limit_check_methods[];
void add_rate_limit_operations();

}  // namespace peercore::bindings

#pragma once

#include "peercore/ratelimit/token_bucket.hpp"
#include "python_api.hpp"

namespace peercore::bindings {

/// The native half of the dataclass RateLimitConfig: its numbers as the core needs them, always in step with the fields.
struct RateLimitConfigObject {
  PyObject_HEAD
  PyObject* requests_per_minute;  // as given (int stays int), for what callers read and what `info` reports
  PyObject* burst_size;
  PyObject* window_seconds;
  PyObject* refill_rate;  // set by hand, or null: then derived from requests_per_minute
  PyObject* allowed_info;  // templates of the info dict, made on first use
  PyObject* denied_info;
  ratelimit::BucketConfig native;
  bool validated;
};

/// What a check needs from a configuration, whatever kind of object it is.
struct ResolvedConfig {
  ratelimit::BucketConfig native;
  RateLimitConfigObject* object = nullptr;  ///< borrowed; null when the configuration is a foreign object
  Ref limit;                                ///< requests_per_minute and window_seconds of a foreign object
  Ref window;
};

/// Reads a configuration: the dataclass directly, a subclass or any object with the same attributes through them. False
/// with a Python error set.
[[nodiscard]] bool resolve_config(PyObject* config, ResolvedConfig& out);

/// A fresh info dict for `config` with `limit` and `window` in place; the rest is the caller's. Null with an error set.
[[nodiscard]] PyObject* new_info(const ResolvedConfig& config, bool admitted);

/// Interned keys of the info dict.
struct InfoKeys {
  PyObject* limit;
  PyObject* remaining;
  PyObject* reset_at;
  PyObject* window;
  PyObject* retry_after;
};
[[nodiscard]] const InfoKeys& info_keys() noexcept;

}  // namespace peercore::bindings

#pragma once

#include <cstdint>

#include "peercore/ratelimit/token_bucket.hpp"
#include "python_api.hpp"

namespace peercore::bindings {

/// How one kind of info dict is made: from a template, or from a dict handed out before that its caller has dropped.
/// Two are remembered, because `ok, info = await …` in a loop still holds the last one when the next is made.
struct InfoKit {
  PyObject* model;  // made on first use
  PyObject* recent[2];
  std::uint64_t version[2];  // of the dicts as they were handed out (DictVersion)
  unsigned char turn;
};

/// The native half of the dataclass RateLimitConfig: its numbers as the core needs them, always in step with the
/// fields.
struct RateLimitConfigObject {
  PyObject_HEAD
  PyObject* requests_per_minute;  // as given (int stays int), for what callers read and what `info` reports
  PyObject* burst_size;
  PyObject* window_seconds;
  PyObject* refill_rate;  // set by hand, or null: then derived from requests_per_minute
  InfoKit allowed;
  InfoKit denied;
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

/// What changes from one info dict to the next. `retry_after` is null when the request was admitted.
struct InfoValues {
  Ref remaining;
  Ref reset_at;
  Ref retry_after;
};

/// The info dict of check_rate_limit, the caller's to keep and change. New reference, or null with an error set.
[[nodiscard]] PyObject* make_info(const ResolvedConfig& config, const InfoValues& values);

}  // namespace peercore::bindings

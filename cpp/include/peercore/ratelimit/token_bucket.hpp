#pragma once

#include <cstdint>

#include "peercore/base/clock.hpp"
#include "peercore/base/result.hpp"

namespace peercore::ratelimit {

/// What a bucket is filled with and how much it holds. Plain value; build it with `make` or `make_unchecked`.
struct BucketConfig {
  /// Tokens per second, at least 0. 0 never refills.
  double refill_rate = 1.0;
  /// Tokens a full bucket holds, at least 0. Below 1 nothing is ever admitted.
  double burst = 10.0;
  /// Length of the reporting window. Counts requests; limits them only when `window_limit` is set.
  Seconds window{60.0};
  /// Requests per window that `enforce_window` admits.
  double window_limit = 60.0;

  /// Refuses what would deny for ever: a rate, burst or window that is not a positive finite number, or a burst below
  /// 1.
  [[nodiscard]] static Result<BucketConfig> make(double requests_per_minute, double burst_size, double window_seconds);
  /// Takes anything. What cannot work (negative, not finite) becomes 0 and so denies.
  [[nodiscard]] static BucketConfig make_unchecked(double requests_per_minute, double burst_size,
                                                   double window_seconds);
};

/// How requests are judged; the same for all buckets of one limiter.
struct Rules {
  /// A request is admitted this much before its token is complete. Clock readings near the Unix epoch are rounded to
  /// 0.24 us, so without it a client that waits exactly `retry_after` could be refused. The debt stays in the bucket:
  /// the long-run rate is exact. v1.2 has none.
  Seconds slack{1e-6};
  /// Also refuse what exceeds `BucketConfig::window_limit` in the current window. v1.2 only reports the window.
  bool enforce_window = false;
};

/// One client's allowance. Times are readings of one monotonic clock.
/// Invariant: tokens <= burst of the config it was last judged by.
struct Bucket {
  Bucket() noexcept {}  // a constructor of its own makes its tail padding usable by KeyTable's entry
  Bucket(double tokens_, Seconds now) noexcept : tokens(tokens_), last_update(now), window_start(now), full_at(now) {}

  double tokens = 0.0;
  Seconds last_update{0.0};
  Seconds window_start{0.0};
  /// From this time on the bucket is as good as a new one.
  Seconds full_at{0.0};
  std::uint32_t request_count = 0;
};

/// Longest `retry_after` reported, for buckets that never refill: a number every JSON reader and HTTP client can hold.
inline constexpr Seconds kMaxRetryAfter{365.0 * 86400.0};

/// Adds the tokens earned since the last update and starts a new window when the old one is over. A `now` before the
/// last update changes nothing.
void refill(Bucket& bucket, const BucketConfig& config, Seconds now) noexcept;

/// `refill`, then takes `cost` tokens if they are there. A refusal takes none.
[[nodiscard]] bool try_acquire(Bucket& bucket, const BucketConfig& config, const Rules& rules, Seconds now,
                               double cost) noexcept;

/// How long after its last update the bucket will admit `cost`: 0 or more, at most `kMaxRetryAfter`.
[[nodiscard]] Seconds wait_for(const Bucket& bucket, const BucketConfig& config, const Rules& rules,
                               double cost) noexcept;

/// Recomputes `full_at` after a change of tokens, time or config.
void update_full_at(Bucket& bucket, const BucketConfig& config) noexcept;

/// `wait` rounded up to whole tenths of a second, the form in which v1.2's callers are told to come back.
[[nodiscard]] double round_up_to_tenth(Seconds wait) noexcept;

/// v1.2's own formula: whole seconds, one too many when the wait is a whole number (fault F16, kept for `compat`). v1.2
/// knows neither a cost other than 1 nor an enforced window; at least 1 in any case.
[[nodiscard]] std::int64_t integer_retry_after(const Bucket& bucket, const BucketConfig& config, const Rules& rules,
                                               double cost) noexcept;

inline void refill(Bucket& bucket, const BucketConfig& config, Seconds now) noexcept {
  const double elapsed = (now - bucket.last_update).count();
  if (elapsed > 0.0) {
    const double tokens = bucket.tokens + elapsed * config.refill_rate;
    bucket.tokens = tokens < config.burst ? tokens : config.burst;
    bucket.last_update = now;
  } else if (bucket.tokens > config.burst) {
    bucket.tokens = config.burst;  // the config shrank within one clock reading
  }
  if (now - bucket.window_start > config.window) {
    bucket.window_start = now;
    bucket.request_count = 0;
  }
}

inline void update_full_at(Bucket& bucket, const BucketConfig& config) noexcept {
  const double missing = config.burst - bucket.tokens;
  // Division by a zero rate gives infinity, which is the answer: it is never full again.
  bucket.full_at = missing > 0.0 ? bucket.last_update + Seconds{missing / config.refill_rate} : bucket.last_update;
}

inline bool try_acquire(Bucket& bucket, const BucketConfig& config, const Rules& rules, Seconds now,
                        double cost) noexcept {
  refill(bucket, config, now);
  const bool enough = bucket.tokens + rules.slack.count() * config.refill_rate >= cost;
  const bool in_window = !rules.enforce_window || bucket.request_count + cost <= config.window_limit;
  if (enough && in_window) {
    bucket.tokens -= cost;
    bucket.request_count += static_cast<std::uint32_t>(cost);
  }
  update_full_at(bucket, config);  // on refusal too: the config may be another one than last time
  return enough && in_window;
}

}  // namespace peercore::ratelimit

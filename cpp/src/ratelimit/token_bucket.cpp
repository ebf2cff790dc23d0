#include "peercore/ratelimit/token_bucket.hpp"

#include <algorithm>
#include <cmath>
#include <string>

namespace peercore::ratelimit {
namespace {

constexpr double kSecondsPerMinute = 60.0;

bool positive(double value) noexcept { return std::isfinite(value) && value > 0.0; }

double usable(double value) noexcept { return positive(value) ? value : 0.0; }

// How long the enforced window keeps `cost` out, counted from the bucket's last update.
Seconds window_wait(const Bucket& bucket, const BucketConfig& config, const Rules& rules, double cost) noexcept {
  if (!rules.enforce_window || bucket.request_count + cost <= config.window_limit) {
    return Seconds{0.0};
  }
  // The window restarts once it is strictly over. What no window holds, a new one does not admit either.
  return cost > config.window_limit ? kMaxRetryAfter
                                    : bucket.window_start + config.window - bucket.last_update + rules.slack;
}

Error out_of_range(const char* field, const char* rule) {
  return {Errc::invalid_config, std::string(field) + " must be " + rule};
}

}  // namespace

Result<BucketConfig> BucketConfig::make(double requests_per_minute, double burst_size, double window_seconds) {
  if (!positive(requests_per_minute)) {
    return out_of_range("requests_per_minute", "a finite number above 0");
  }
  if (!std::isfinite(burst_size) || burst_size < 1.0) {
    return out_of_range("burst_size", "a finite number of at least 1");
  }
  if (!positive(window_seconds)) {
    return out_of_range("window_seconds", "a finite number above 0");
  }
  return make_unchecked(requests_per_minute, burst_size, window_seconds);
}

BucketConfig BucketConfig::make_unchecked(double requests_per_minute, double burst_size, double window_seconds) {
  return {.refill_rate = usable(requests_per_minute) / kSecondsPerMinute,
          .burst = usable(burst_size),
          .window = Seconds{usable(window_seconds)},
          .window_limit = usable(requests_per_minute)};
}

Seconds wait_for(const Bucket& bucket, const BucketConfig& config, const Rules& rules, double cost) noexcept {
  Seconds wait{0.0};
  const double missing = cost - bucket.tokens - rules.slack.count() * config.refill_rate;
  if (missing > 0.0) {
    wait = cost > config.burst || config.refill_rate <= 0.0 ? kMaxRetryAfter
                                                            : Seconds{(cost - bucket.tokens) / config.refill_rate};
  }
  return std::clamp(std::max(wait, window_wait(bucket, config, rules, cost)), Seconds{0.0}, kMaxRetryAfter);
}

double round_up_to_tenth(Seconds wait) noexcept {
  // Rounding noise must not cost a client another tenth, so up to 0.5 us above a tenth counts as that tenth. It stays
  // below Rules::slack, so that who waits this long is admitted.
  constexpr double kNoise = 5e-6;
  return std::ceil(wait.count() * 10.0 - kNoise) / 10.0;
}

std::int64_t integer_retry_after(const Bucket& bucket, const BucketConfig& config, const Rules& rules,
                                 double cost) noexcept {
  if (config.refill_rate <= 0.0) {
    return static_cast<std::int64_t>(kMaxRetryAfter.count());
  }
  const Seconds wait =
      std::max(Seconds{(cost - bucket.tokens) / config.refill_rate}, window_wait(bucket, config, rules, cost));
  return static_cast<std::int64_t>(std::clamp(wait, Seconds{0.0}, kMaxRetryAfter).count()) + 1;
}

}  // namespace peercore::ratelimit

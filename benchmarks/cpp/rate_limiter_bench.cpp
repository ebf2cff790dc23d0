#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstddef>
#include <random>
#include <string>
#include <vector>

#include "peercore/base/clock.hpp"
#include "peercore/base/limits.hpp"
#include "peercore/ratelimit/bucket_table.hpp"
#include "peercore/ratelimit/token_bucket.hpp"

// The core alone: no Python, hash already there (CPython caches one in every str). Every benchmark checks its answers.
namespace peercore::ratelimit {
namespace {

constexpr std::size_t kKeys = 10'000;
constexpr Seconds kStep{1e-6};

/// Distinct keys "<client>:<path>" in random order, as views that carry a hash.
class Keys {
 public:
  explicit Keys(std::size_t count) {
    std::mt19937_64 random(count);
    texts_.reserve(count);
    for (std::size_t number = 0; number < count; ++number) {
      texts_.push_back("10.0." + std::to_string(number) + ":/api/v1/messages");
      views_.push_back({texts_.back(), random(), 0});
    }
    std::shuffle(views_.begin(), views_.end(), random);
  }

  [[nodiscard]] const KeyView& operator[](std::size_t number) const { return views_[number]; }
  [[nodiscard]] std::size_t size() const { return views_.size(); }

  /// Makes every key's bucket, in another order than that of the checks: else memory would be read front to back, which
  /// no real traffic does.
  void put_into(BucketTable& table, const BucketConfig& config) const {
    std::vector<KeyView> views = views_;
    std::sort(views.begin(), views.end(), [](const KeyView& a, const KeyView& b) { return a.text < b.text; });
    for (const KeyView& key : views) {
      benchmark::DoNotOptimize(table.admit(key, config, Seconds{1000.0}, 1.0));
    }
  }

 private:
  std::vector<std::string> texts_;
  std::vector<KeyView> views_;
};

BucketConfig ample() { return BucketConfig::make(60, 1e9, 60).value(); }

/// Runs `judge(key, now)` over the keys in turn; an answer other than `expected` ends the benchmark with an error.
template <class Judge>
void run_over(benchmark::State& state, const Keys& keys, bool expected, Judge judge) {
  std::size_t next = 0;
  Seconds now{1000.0};
  bool as_expected = true;
  for (auto _ : state) {
    now += kStep;
    as_expected &= judge(keys[next], now) == expected;
    next = next + 1 == keys.size() ? 0 : next + 1;
  }
  if (!as_expected) {
    state.SkipWithError("wrong answer");
  }
}

void keyed_check(benchmark::State& state) {
  const Keys keys(kKeys);
  const BucketConfig config = ample();
  BucketTable table(Limits{}, Rules{});
  keys.put_into(table, config);
  run_over(state, keys, true, [&](const KeyView& key, Seconds now) {
    const Result<bool> admitted = table.admit(key, config, now, 1.0);
    return admitted.ok() && admitted.value();
  });
}
BENCHMARK(keyed_check);

void keyed_check_with_info(benchmark::State& state) {
  const Keys keys(kKeys);
  const BucketConfig config = ample();
  BucketTable table(Limits{}, Rules{});
  keys.put_into(table, config);
  run_over(state, keys, true, [&](const KeyView& key, Seconds now) {
    const Result<Decision> decision = table.check(key, config, now, 1.0);
    return decision.ok() && decision.value().admitted;
  });
}
BENCHMARK(keyed_check_with_info);

void keyed_check_denied(benchmark::State& state) {
  const Keys keys(kKeys);
  const BucketConfig config = BucketConfig::make(1e-6, 1, 60).value();
  BucketTable table(Limits{}, Rules{});
  keys.put_into(table, config);
  run_over(state, keys, false, [&](const KeyView& key, Seconds now) {
    const Result<bool> admitted = table.admit(key, config, now, 1.0);
    return !admitted.ok() || admitted.value();
  });
}
BENCHMARK(keyed_check_denied);

/// Every key is new and the table is at its bound: one eviction and one insertion per check.
void new_key_at_the_bound(benchmark::State& state) {
  const Keys keys(4 * kKeys);
  const BucketConfig config = ample();
  Limits limits;
  limits.max_buckets = kKeys;
  BucketTable table(limits, Rules{});
  run_over(state, keys, true, [&](const KeyView& key, Seconds now) {
    const Result<bool> admitted = table.admit(key, config, now, 1.0);
    return admitted.ok() && admitted.value();
  });
  if (table.size() > kKeys) {
    state.SkipWithError("the bound was not kept");
  }
}
BENCHMARK(new_key_at_the_bound);

}  // namespace
}  // namespace peercore::ratelimit

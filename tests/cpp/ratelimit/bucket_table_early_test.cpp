// Answers by a clock that lags: they must be those of the exact time, or not be given.

#include <array>
#include <cmath>
#include <optional>
#include <random>
#include <string>

#include "base/test_keys.hpp"
#include "gtest/gtest.h"
#include "peercore/base/clock.hpp"
#include "peercore/ratelimit/bucket_table.hpp"

namespace peercore::ratelimit {
namespace {

using test::key_of;

constexpr Seconds kLag = SystemClock::kCoarseLag;
const BucketConfig kConfig = BucketConfig::make_unchecked(60, 10, 60);

// What the exact path would say of `bucket` at `now`.
Decision exact(Bucket bucket, const BucketConfig& config, const Rules& rules, Seconds now, double cost) {
  const bool admitted = try_acquire(bucket, config, rules, now, cost);
  return {admitted, bucket};
}

bool same(const Bucket& a, const Bucket& b) {
  return a.tokens == b.tokens && a.last_update == b.last_update && a.window_start == b.window_start &&
         a.full_at == b.full_at && a.request_count == b.request_count;
}

TEST(CheckEarly, AnUnknownKeyIsNotAnswered) {
  BucketTable table({}, {});
  EXPECT_FALSE(table.check_early(key_of("a"), kConfig, Seconds{0}, kLag, 1));
  EXPECT_FALSE(table.admit_early(key_of("a"), kConfig, Seconds{0}, 1));
  EXPECT_EQ(table.size(), 0U);
}

TEST(CheckEarly, ARefusalIsAnsweredWhenItsWaitDoesNotDependOnTheLag) {
  BucketTable table({}, {});
  ASSERT_TRUE(table.check(key_of("a"), kConfig, Seconds{0}, 10).value().admitted);
  const auto refused = table.check_early(key_of("a"), kConfig, Seconds{0.45}, kLag, 1);  // 0.6 s at any time
  ASSERT_TRUE(refused);
  EXPECT_FALSE(refused->admitted);
  EXPECT_EQ(table.counters().denied, 1U);
  EXPECT_FALSE(table.check_early(key_of("a"), kConfig, Seconds{0.495}, kLag, 1));  // 0.6 or 0.5 s?
  EXPECT_FALSE(table.check_early(key_of("a"), kConfig, Seconds{0.995}, kLag, 1));  // refused or admitted?
  EXPECT_EQ(table.counters().denied, 1U);
  EXPECT_TRUE(table.check(key_of("a"), kConfig, Seconds{1}, 1).value().admitted);
}

// The slack admits a microsecond before the token is whole; an early refusal must not reach into that.
TEST(CheckEarly, TheEdgeOfTheSlackIsLeftToTheExactTime) {
  for (const double short_of : {0.3e-6, 0.7e-6, 0.99e-6}) {
    BucketTable table({}, {});
    ASSERT_TRUE(table.check(key_of("a"), kConfig, Seconds{0}, 10).value().admitted);
    const Seconds edge{1.0 - short_of};  // admitted at this time by the slack alone
    EXPECT_FALSE(table.check_early(key_of("a"), kConfig, edge - kLag, kLag, 1));
    EXPECT_TRUE(table.check(key_of("a"), kConfig, edge, 1).value().admitted);
  }
}

TEST(CheckEarly, AnEnforcedWindowIsLeftToTheExactTime) {
  BucketTable table({}, {.enforce_window = true});
  const BucketConfig config = BucketConfig::make_unchecked(3, 10, 60);
  ASSERT_TRUE(table.check(key_of("a"), config, Seconds{0}, 2).value().admitted);
  EXPECT_TRUE(table.check_early(key_of("a"), config, Seconds{1}, kLag, 1));
  EXPECT_FALSE(table.check_early(key_of("a"), config, Seconds{1}, kLag, 1));
  EXPECT_EQ(table.counters().denied, 0U);
}

TEST(AdmitEarly, ADenialIsLeftToTheExactTime) {
  BucketTable table({}, {});
  ASSERT_TRUE(table.check(key_of("a"), kConfig, Seconds{0}, 10).value().admitted);
  EXPECT_FALSE(table.admit_early(key_of("a"), kConfig, Seconds{0.5}, 1));
  EXPECT_EQ(table.counters().denied, 0U);
}

TEST(CheckEarly, ATokenThatIsDueWithinTheLagIsLeftToTheExactTime) {
  BucketTable table({}, {});
  ASSERT_TRUE(table.check(key_of("a"), kConfig, Seconds{0}, 6).value().admitted);  // 4 left
  EXPECT_FALSE(table.check_early(key_of("a"), kConfig, Seconds{0.995}, kLag, 1));  // 3 or 4 left?
  const auto decision = table.check_early(key_of("a"), kConfig, Seconds{0.9}, kLag, 1);
  ASSERT_TRUE(decision);
  EXPECT_TRUE(decision->admitted);
  EXPECT_NEAR(decision->bucket.tokens, 3.9, 1e-12);
}

TEST(CheckEarly, AWindowThatEndsWithinTheLagIsLeftToTheExactTime) {
  BucketTable table({}, {});
  ASSERT_TRUE(table.check(key_of("a"), kConfig, Seconds{0}, 1).value().admitted);
  EXPECT_FALSE(table.check_early(key_of("a"), kConfig, Seconds{59.995}, kLag, 1));
  EXPECT_TRUE(table.check_early(key_of("a"), kConfig, Seconds{59.98}, kLag, 1));
}

TEST(CheckEarly, CountsAndKeepsTheOrderOfUse) {
  BucketTable table({.max_buckets = 2}, {});
  ASSERT_TRUE(table.check(key_of("a"), kConfig, Seconds{0}, 5).value().admitted);
  ASSERT_TRUE(table.check(key_of("b"), kConfig, Seconds{0}, 5).value().admitted);
  ASSERT_TRUE(table.check_early(key_of("a"), kConfig, Seconds{0.5}, kLag, 1));
  EXPECT_EQ(table.counters().allowed, 3U);
  ASSERT_TRUE(table.check(key_of("c"), kConfig, Seconds{0.5}, 1).value().admitted);
  EXPECT_TRUE(table.peek(key_of("a")));
  EXPECT_FALSE(table.peek(key_of("b")));
}

struct Case {
  BucketConfig config;
  Rules rules;
  Bucket bucket;
  Seconds now{0.0};
  double cost = 1.0;
};

Case random_case(std::mt19937& random) {
  const auto uniform = [&random](double low, double high) { return std::uniform_real_distribution(low, high)(random); };
  Case c;
  const double window = std::exp(uniform(-3.0, 6.0));
  c.config =
      BucketConfig::make_unchecked(std::exp(uniform(-2.0, 16.0)), std::floor(std::exp(uniform(0.0, 4.0))), window);
  c.rules = {.slack = Seconds{random() % 2 == 0 ? 0.0 : 1e-6}, .enforce_window = random() % 3 == 0};
  const Seconds origin{random() % 2 == 0 ? 1000.0 : 1.7e9};
  // Whole numbers of tokens, ends of windows and times just before the last update are what goes wrong first.
  const double tokens = random() % 2 == 0 ? uniform(0.0, c.config.burst) : std::floor(uniform(0.0, c.config.burst));
  c.bucket = Bucket(tokens, origin);
  c.bucket.window_start = origin - Seconds{uniform(0.0, window)};
  c.bucket.request_count =
      static_cast<std::uint32_t>(uniform(0.0, c.config.window_limit < 1e6 ? c.config.window_limit + 2 : 1e6));
  c.now =
      origin + (random() % 2 == 0 ? Seconds{uniform(-0.02, 0.02)} : Seconds{uniform(0.0, 2 / c.config.refill_rate)});
  c.cost = random() % 2 == 0 ? 1.0 : std::floor(uniform(1.0, c.config.burst + 1));
  return c;
}

// What the caller is told beside yes or no: tokens left when admitted, retry_after in both forms when refused.
std::array<double, 2> told(const Decision& decision, const Case& c) {
  if (decision.admitted) {
    return {std::floor(decision.bucket.tokens), 0.0};
  }
  const Seconds wait = wait_for(decision.bucket, c.config, c.rules, c.cost);
  return {round_up_to_tenth(wait),
          static_cast<double>(integer_retry_after(decision.bucket, c.config, c.rules, c.cost))};
}

TEST(CheckEarly, AnswersWhatEveryTimeWithinTheLagWouldAnswer) {
  std::mt19937 random(29);  // NOLINT(cert-msc51-cpp): the same run every time
  int admitted = 0;
  int refused = 0;
  constexpr int kCases = 200'000;
  for (int i = 0; i < kCases; ++i) {
    const Case c = random_case(random);
    BucketTable table({}, c.rules);
    ASSERT_TRUE(table.put(key_of("k"), c.bucket, c.config, c.now));
    const Bucket before = table.peek(key_of("k")).value();
    const auto early = table.check_early(key_of("k"), c.config, c.now, kLag, c.cost);
    if (!early) {
      ASSERT_TRUE(same(table.peek(key_of("k")).value(), before)) << i;
      ASSERT_EQ(table.counters().allowed + table.counters().denied, 0U) << i;
      continue;
    }
    ++(early->admitted ? admitted : refused);
    ASSERT_EQ(table.counters().allowed, early->admitted ? 1U : 0U) << i;
    ASSERT_EQ(table.counters().denied, early->admitted ? 0U : 1U) << i;
    ASSERT_TRUE(same(early->bucket, table.peek(key_of("k")).value())) << i;
    for (const double part : {0.0, 0.25, 0.5, 0.75, 1.0}) {
      const Decision late = exact(before, c.config, c.rules, c.now + part * kLag, c.cost);
      ASSERT_EQ(late.admitted, early->admitted) << i;
      ASSERT_EQ(told(*early, c), told(late, c)) << i;
      ASSERT_EQ(early->bucket.window_start, late.bucket.window_start) << i;
      ASSERT_EQ(early->bucket.request_count, late.bucket.request_count) << i;
    }
  }
  EXPECT_GT(admitted, kCases / 20);
  EXPECT_GT(refused, kCases / 20);
}

TEST(AdmitEarly, AdmitsOnlyWhatEveryTimeWithinTheLagWouldAdmit) {
  std::mt19937 random(31);  // NOLINT(cert-msc51-cpp): the same run every time
  int answered = 0;
  constexpr int kCases = 200'000;
  for (int i = 0; i < kCases; ++i) {
    const Case c = random_case(random);
    BucketTable table({}, c.rules);
    ASSERT_TRUE(table.put(key_of("k"), c.bucket, c.config, c.now));
    const Bucket before = table.peek(key_of("k")).value();
    if (!table.admit_early(key_of("k"), c.config, c.now, c.cost)) {
      // The exact time then gives the answer it would have given without the attempt.
      const bool expected = exact(before, c.config, c.rules, c.now + kLag, c.cost).admitted;
      const bool after = table.admit(key_of("k"), c.config, c.now + kLag, c.cost).value();
      const double tokens = exact(before, c.config, c.rules, c.now + kLag, 1e9).bucket.tokens;
      // Adding in two steps may round otherwise than in one: only who is that close to the edge sees it.
      ASSERT_TRUE(expected == after || std::abs(tokens - c.cost) < 1e-6 * (1 + c.config.refill_rate)) << i;
      continue;
    }
    ++answered;
    for (const double part : {0.0, 0.5, 1.0}) {
      ASSERT_TRUE(exact(before, c.config, c.rules, c.now + part * kLag, c.cost).admitted) << i;
    }
  }
  EXPECT_GT(answered, kCases / 20);
}

// Mixing early and exact answers over a long time admits no more than exact ones alone, give or take the lag.
TEST(AdmitEarly, DoesNotRaiseTheLongRunRate) {
  BucketTable early({}, {});
  BucketTable late({}, {});
  const BucketConfig config = BucketConfig::make_unchecked(6000, 20, 60);
  for (int i = 0; i < 200'000; ++i) {
    const Seconds now{i * 0.003};
    const Seconds coarse{std::floor(now.count() / kLag.count()) * kLag.count()};
    if (!early.admit_early(key_of("k"), config, coarse, 1)) {
      ASSERT_TRUE(early.admit(key_of("k"), config, now, 1));
    }
    ASSERT_TRUE(late.admit(key_of("k"), config, now, 1));
  }
  const auto allowed = static_cast<double>(early.counters().allowed);
  EXPECT_NEAR(allowed, static_cast<double>(late.counters().allowed), config.refill_rate * kLag.count() + 2);
}

}  // namespace
}  // namespace peercore::ratelimit

#include "peercore/ratelimit/token_bucket.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace peercore::ratelimit {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

BucketConfig per_minute(double requests, double burst, double window = 60.0) {
  return BucketConfig::make_unchecked(requests, burst, window);
}

// ---- configuration

TEST(BucketConfig, RatesArePerSecond) {
  const auto config = BucketConfig::make(120, 20, 30);
  ASSERT_TRUE(config);
  EXPECT_EQ(config.value().refill_rate, 2.0);
  EXPECT_EQ(config.value().burst, 20.0);
  EXPECT_EQ(config.value().window, Seconds{30});
  EXPECT_EQ(config.value().window_limit, 120.0);
}

TEST(BucketConfig, RefusesWhatWouldDenyForEverAndNamesTheField) {
  const auto refused = [](double rate, double burst, double window) {
    const auto config = BucketConfig::make(rate, burst, window);
    EXPECT_FALSE(config);
    EXPECT_EQ(config.error().code, Errc::invalid_config);
    return config.error().message();
  };
  for (const double bad : {0.0, -1.0, kInfinity, -kInfinity, kNan}) {
    EXPECT_THAT(refused(bad, 10, 60), testing::HasSubstr("requests_per_minute")) << bad;
    EXPECT_THAT(refused(60, bad, 60), testing::HasSubstr("burst_size")) << bad;
    EXPECT_THAT(refused(60, 10, bad), testing::HasSubstr("window_seconds")) << bad;
  }
  EXPECT_THAT(refused(60, 0.99, 60), testing::HasSubstr("burst_size"));
  EXPECT_TRUE(BucketConfig::make(1e-9, 1, 1e-9));
}

// F14, F15: with checks switched off, what cannot work denies; it neither fails nor drains the bucket.
TEST(BucketConfig, UncheckedNonsenseDenies) {
  for (const double bad : {0.0, -5.0, kInfinity, kNan}) {
    const BucketConfig config = per_minute(bad, bad, bad);
    EXPECT_EQ(config.refill_rate, 0.0);
    EXPECT_EQ(config.burst, 0.0);
    EXPECT_EQ(config.window, Seconds{0});
    Bucket bucket(config.burst, Seconds{0});
    EXPECT_FALSE(try_acquire(bucket, config, {}, Seconds{1e6}, 1));
    EXPECT_EQ(bucket.tokens, 0.0);
  }
}

// ---- refill

TEST(Refill, AddsWhatWasEarnedUpToTheBurst) {
  const BucketConfig config = per_minute(120, 10);
  Bucket bucket(1.0, Seconds{100});
  refill(bucket, config, Seconds{101.5});
  EXPECT_DOUBLE_EQ(bucket.tokens, 4.0);
  EXPECT_EQ(bucket.last_update, Seconds{101.5});
  refill(bucket, config, Seconds{200});
  EXPECT_EQ(bucket.tokens, 10.0);
}

// F12: a clock that steps back neither makes tokens negative nor loses those that are there.
TEST(Refill, AnEarlierTimeChangesNothing) {
  const BucketConfig config = per_minute(60, 10);
  Bucket bucket(4.0, Seconds{5000});
  refill(bucket, config, Seconds{5000 - 3600});
  EXPECT_EQ(bucket.tokens, 4.0);
  EXPECT_EQ(bucket.last_update, Seconds{5000});
  EXPECT_EQ(bucket.window_start, Seconds{5000});
  refill(bucket, config, Seconds{5001});
  EXPECT_DOUBLE_EQ(bucket.tokens, 5.0);
}

TEST(Refill, ASmallerBurstTakesEffectAtOnce) {
  Bucket bucket(10.0, Seconds{100});
  refill(bucket, per_minute(60, 3), Seconds{100});
  EXPECT_EQ(bucket.tokens, 3.0);
}

TEST(Refill, TheWindowRestartsOnceItIsStrictlyOver) {
  const BucketConfig config = per_minute(60, 10, 60);
  Bucket bucket(10.0, Seconds{0});
  bucket.request_count = 7;
  refill(bucket, config, Seconds{60});
  EXPECT_EQ(bucket.request_count, 7U);
  EXPECT_EQ(bucket.window_start, Seconds{0});
  refill(bucket, config, Seconds{60.5});
  EXPECT_EQ(bucket.request_count, 0U);
  EXPECT_EQ(bucket.window_start, Seconds{60.5});
}

TEST(Refill, StaysFiniteAtTheEndsOfTime) {
  const BucketConfig config = per_minute(1e300, 1e12);
  for (const double now : {1e300, -1e300, 1.7e308, -1.7e308}) {
    Bucket bucket(0.0, Seconds{-now});
    refill(bucket, config, Seconds{now});
    update_full_at(bucket, config);
    EXPECT_TRUE(std::isfinite(bucket.tokens)) << now;
    EXPECT_GE(bucket.tokens, 0.0);
    EXPECT_LE(bucket.tokens, config.burst);
    EXPECT_FALSE(std::isnan(bucket.full_at.count()));
  }
}

// ---- taking tokens

TEST(TryAcquire, AdmitsTheBurstAndThenTheRate) {
  const BucketConfig config = per_minute(60, 10);
  Bucket bucket(config.burst, Seconds{0});
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(try_acquire(bucket, config, {}, Seconds{0}, 1)) << i;
  }
  EXPECT_FALSE(try_acquire(bucket, config, {}, Seconds{0}, 1));
  EXPECT_FALSE(try_acquire(bucket, config, {}, Seconds{0.9}, 1));
  EXPECT_TRUE(try_acquire(bucket, config, {}, Seconds{1}, 1));
  EXPECT_FALSE(try_acquire(bucket, config, {}, Seconds{1}, 1));
  EXPECT_EQ(bucket.request_count, 11U);
}

TEST(TryAcquire, ACostIsTakenWholeOrNotAtAll) {
  const BucketConfig config = per_minute(60, 10);
  Bucket bucket(config.burst, Seconds{0});
  EXPECT_TRUE(try_acquire(bucket, config, {}, Seconds{0}, 7));
  EXPECT_FALSE(try_acquire(bucket, config, {}, Seconds{0}, 4));
  EXPECT_DOUBLE_EQ(bucket.tokens, 3.0);
  EXPECT_EQ(bucket.request_count, 7U);
  EXPECT_TRUE(try_acquire(bucket, config, {}, Seconds{0}, 3));
  EXPECT_FALSE(try_acquire(bucket, config, {}, Seconds{1e9}, 11));
  EXPECT_FALSE(try_acquire(bucket, config, {}, Seconds{1e9}, kInfinity));
  EXPECT_EQ(bucket.tokens, 10.0);
}

// ---- how long to wait

// F16: the smallest wait after which one request is admitted.
TEST(WaitFor, IsTheSmallestWaitThatIsAdmitted) {
  const Rules rules;
  EXPECT_DOUBLE_EQ(wait_for(Bucket(0.0, Seconds{0}), per_minute(60, 10), rules, 1).count(), 1.0);
  EXPECT_DOUBLE_EQ(wait_for(Bucket(0.0, Seconds{0}), per_minute(5, 1), rules, 1).count(), 12.0);
  EXPECT_NEAR(wait_for(Bucket(0.9, Seconds{0}), per_minute(60, 10), rules, 1).count(), 0.1, 1e-12);
  EXPECT_DOUBLE_EQ(wait_for(Bucket(2.0, Seconds{0}), per_minute(60, 10), rules, 5).count(), 3.0);
  EXPECT_EQ(wait_for(Bucket(3.0, Seconds{0}), per_minute(60, 10), rules, 1).count(), 0.0);
}

// F14: no rate, or more than a full bucket holds, is a wait that ends in no client's overflow.
TEST(WaitFor, WhatIsNeverAdmittedHasTheLongestWait) {
  EXPECT_EQ(wait_for(Bucket(0.0, Seconds{0}), per_minute(0, 10), {}, 1), kMaxRetryAfter);
  EXPECT_EQ(wait_for(Bucket(10.0, Seconds{0}), per_minute(60, 10), {}, 11), kMaxRetryAfter);
  EXPECT_EQ(wait_for(Bucket(10.0, Seconds{0}), per_minute(60, 10), {}, kInfinity), kMaxRetryAfter);
  EXPECT_EQ(wait_for(Bucket(0.0, Seconds{0}), per_minute(1e-300, 10), {}, 1), kMaxRetryAfter);
  const Rules enforced{.enforce_window = true};
  EXPECT_EQ(wait_for(Bucket(100.0, Seconds{0}), per_minute(60, 100), enforced, 61), kMaxRetryAfter);
}

TEST(WaitFor, RoundsUpToTenths) {
  EXPECT_EQ(round_up_to_tenth(Seconds{0.0}), 0.0);
  EXPECT_EQ(round_up_to_tenth(Seconds{0.1}), 0.1);
  EXPECT_EQ(round_up_to_tenth(Seconds{0.11}), 0.2);
  EXPECT_EQ(round_up_to_tenth(Seconds{1.0}), 1.0);
  EXPECT_EQ(round_up_to_tenth(Seconds{1.00001}), 1.1);
  EXPECT_EQ(round_up_to_tenth(Seconds{12.0 + 1e-9}), 12.0);
  EXPECT_EQ(round_up_to_tenth(Seconds{0.3 - 1e-15}), 0.3);
}

struct Denied {
  Bucket bucket;
  BucketConfig config;
  Seconds now{0.0};
  double cost = 1.0;
};

// A bucket that has just refused, after some use with uneven pauses from an origin of any size.
Denied random_denial(std::mt19937& random, const Rules& rules, double origin) {
  const auto uniform = [&random](double low, double high) { return std::uniform_real_distribution(low, high)(random); };
  Denied denied;
  denied.config = per_minute(std::floor(std::exp(uniform(0.0, 12.0))), std::floor(std::exp(uniform(0.0, 5.0))));
  denied.now = Seconds{origin + uniform(0.0, 1.0)};
  denied.cost = std::floor(uniform(1.0, denied.config.burst + 1.0));
  denied.bucket = Bucket(denied.config.burst, denied.now);
  while (try_acquire(denied.bucket, denied.config, rules, denied.now, denied.cost)) {
    denied.now += Seconds{uniform(0.0, 0.4 / denied.config.refill_rate)};
  }
  return denied;
}

// F12–F16 together: who waits exactly as long as told is admitted, whatever the origin of the clock and the rounding.
TEST(WaitFor, WaitingExactlyThatLongIsAdmittedAndLessIsNot) {
  const Rules rules;
  std::mt19937 random(17);  // NOLINT(cert-msc51-cpp): the same run every time
  for (const double origin : {0.0, 1000.0, 86400.0 * 400, 1.7e9}) {
    for (int i = 0; i < 5000; ++i) {
      const Denied denied = random_denial(random, rules, origin);
      const Seconds wait = wait_for(denied.bucket, denied.config, rules, denied.cost);
      ASSERT_GT(wait, Seconds{0});
      const auto admitted_after = [&](Seconds time) {
        Bucket bucket = denied.bucket;
        return try_acquire(bucket, denied.config, rules, denied.now + time, denied.cost);
      };
      ASSERT_TRUE(admitted_after(wait)) << origin << " " << wait.count();
      ASSERT_TRUE(admitted_after(Seconds{round_up_to_tenth(wait)})) << origin << " " << wait.count();
      ASSERT_FALSE(admitted_after(wait - rules.slack - Seconds{1e-6})) << origin << " " << wait.count();
    }
  }
}

// The slack is a debt, not a present: a client that always comes a slack early gains one slack in all.
TEST(Slack, DoesNotRaiseTheLongRunRate) {
  const Rules rules{.slack = Seconds{1e-3}};  // a thousand times the default, to see it
  const BucketConfig config = per_minute(6000, 5);
  Bucket bucket(config.burst, Seconds{0});
  double admitted = 0;
  Seconds now{0};
  while (now < Seconds{1000}) {
    if (try_acquire(bucket, config, rules, now, 1)) {
      ++admitted;
    }
    now += Seconds{0.0009};
  }
  EXPECT_LE(admitted, config.burst + config.refill_rate * (now + rules.slack).count());
  EXPECT_GE(admitted, config.burst + config.refill_rate * now.count() - 2);
}

TEST(Slack, V12HasNone) {
  const Rules rules{.slack = Seconds{0}};
  Bucket bucket(0.0, Seconds{0});
  EXPECT_FALSE(try_acquire(bucket, per_minute(60, 10), rules, Seconds{1 - 1e-9}, 1));
  EXPECT_TRUE(try_acquire(bucket, per_minute(60, 10), rules, Seconds{1}, 1));
}

// ---- the window (F17)

TEST(Window, OnlyReportedUnlessEnforced) {
  const BucketConfig config = per_minute(60, 10);
  const auto admitted_in_first_minute = [&](const Rules& rules) {
    Bucket bucket(config.burst, Seconds{0});
    int admitted = 0;
    for (int tick = 0; tick <= 600; ++tick) {
      admitted += try_acquire(bucket, config, rules, Seconds{tick * 0.1}, 1) ? 1 : 0;
    }
    return admitted;
  };
  EXPECT_EQ(admitted_in_first_minute({}), 70);
  EXPECT_EQ(admitted_in_first_minute({.enforce_window = true}), 60);
}

TEST(Window, WaitingForItsEndIsAdmitted) {
  const Rules rules{.enforce_window = true};
  for (const double origin : {0.0, 123.456, 1.7e9 + 0.1}) {
    const BucketConfig config = per_minute(6, 100, 10);
    Bucket bucket(config.burst, Seconds{origin});
    ASSERT_TRUE(try_acquire(bucket, config, rules, Seconds{origin + 1}, 6));
    ASSERT_FALSE(try_acquire(bucket, config, rules, Seconds{origin + 2.5}, 1));
    const Seconds wait = wait_for(bucket, config, rules, 1);
    EXPECT_NEAR(wait.count(), 7.5, 1e-5);
    Bucket early = bucket;
    EXPECT_FALSE(try_acquire(early, config, rules, Seconds{origin + 2.5 + 7.4999}, 1));
    Bucket exact = bucket;
    EXPECT_TRUE(try_acquire(exact, config, rules, Seconds{origin + 2.5} + wait, 1));
    EXPECT_TRUE(try_acquire(bucket, config, rules, Seconds{origin + 2.5 + round_up_to_tenth(wait)}, 1));
  }
}

TEST(Window, TheLongerOfBothWaitsCounts) {
  const Rules rules{.enforce_window = true};
  const BucketConfig config = per_minute(3, 3, 5);  // a token takes 20 s, the window 5 s
  Bucket bucket(config.burst, Seconds{0});
  ASSERT_TRUE(try_acquire(bucket, config, rules, Seconds{0}, 3));
  ASSERT_FALSE(try_acquire(bucket, config, rules, Seconds{0}, 1));
  EXPECT_DOUBLE_EQ(wait_for(bucket, config, rules, 1).count(), 20.0);
}

// ---- when a bucket may be forgotten (F18)

TEST(FullAt, IsTheTimeFromWhichANewBucketWouldBeNoBetter) {
  const BucketConfig config = per_minute(1, 100);
  Bucket bucket(config.burst, Seconds{50});
  ASSERT_TRUE(try_acquire(bucket, config, {}, Seconds{50}, 100));
  EXPECT_NEAR(bucket.full_at.count(), 50 + 6000, 1e-6);
  refill(bucket, config, Seconds{50 + 601});
  EXPECT_NEAR(bucket.tokens, 10.0, 0.02);
  refill(bucket, config, bucket.full_at);
  EXPECT_NEAR(bucket.tokens, 100.0, 1e-9);
}

TEST(FullAt, FollowsTheConfigAndARefusalToo) {
  Bucket bucket(0.0, Seconds{10});
  ASSERT_FALSE(try_acquire(bucket, per_minute(60, 5), {}, Seconds{10}, 1));
  EXPECT_DOUBLE_EQ(bucket.full_at.count(), 15.0);
  ASSERT_FALSE(try_acquire(bucket, per_minute(60, 50), {}, Seconds{10}, 1));
  EXPECT_DOUBLE_EQ(bucket.full_at.count(), 60.0);
  update_full_at(bucket, per_minute(0, 5));
  EXPECT_EQ(bucket.full_at.count(), kInfinity);
  bucket.tokens = 5.0;
  update_full_at(bucket, per_minute(0, 5));
  EXPECT_EQ(bucket.full_at, bucket.last_update);
}

// ---- v1.2's whole seconds

TEST(IntegerRetryAfter, IsTheV12Formula) {
  const auto at = [](double tokens, double rate) {
    return integer_retry_after(Bucket(tokens, Seconds{0}), per_minute(rate, 10), {}, 1);
  };
  EXPECT_EQ(at(0.0, 60), 2);
  EXPECT_EQ(at(0.5, 60), 1);
  EXPECT_EQ(at(0.9, 60), 1);
  EXPECT_EQ(at(0.0, 5), 13);
  EXPECT_EQ(at(0.0, 0), static_cast<std::int64_t>(kMaxRetryAfter.count()));
}

TEST(IntegerRetryAfter, CoversCostAndWindowAndIsNeverBelowOne) {
  const BucketConfig config = per_minute(60, 10, 30);
  EXPECT_EQ(integer_retry_after(Bucket(4.0, Seconds{0}), config, {}, 10), 7);
  EXPECT_EQ(integer_retry_after(Bucket(9.0, Seconds{0}), config, {}, 1), 1);
  Bucket bucket(9.0, Seconds{0});
  bucket.request_count = 60;
  EXPECT_EQ(integer_retry_after(bucket, config, {.enforce_window = true}, 1), 31);
}

}  // namespace
}  // namespace peercore::ratelimit

#include "peercore/ratelimit/bucket_table.hpp"

#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include "base/test_keys.hpp"
#include "gtest/gtest.h"

namespace peercore::ratelimit {
namespace {

using test::key_of;
using test::numbered;

const BucketConfig kConfig = BucketConfig::make_unchecked(60, 10, 60);

bool admits(BucketTable& table, std::string_view key, double now, const BucketConfig& config = kConfig,
            double cost = 1) {
  const auto decision = table.check(key_of(key), config, Seconds{now}, cost);
  EXPECT_TRUE(decision);
  return decision.value().admitted;
}

std::vector<std::string> keys_of(const BucketTable& table) {
  std::vector<std::string> keys;
  for (const KeyView& key : table.keys()) {
    keys.emplace_back(key.text);
  }
  return keys;
}

TEST(BucketTable, KeysHaveBucketsOfTheirOwn) {
  BucketTable table({}, {});
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(admits(table, "a", 0));
  }
  EXPECT_FALSE(admits(table, "a", 0));
  EXPECT_TRUE(admits(table, "b", 0));
  EXPECT_TRUE(table.check(key_of("a", 1), kConfig, Seconds{0}, 1).value().admitted);  // other bytes by its tag
  EXPECT_EQ(table.size(), 3U);
  EXPECT_EQ(table.counters().allowed, 12U);
  EXPECT_EQ(table.counters().denied, 1U);
}

TEST(BucketTable, TheDecisionIsACopy) {
  BucketTable table({}, {});
  const Decision decision = table.check(key_of("a"), kConfig, Seconds{5}, 3).value();
  table.clear();
  EXPECT_TRUE(decision.admitted);
  EXPECT_EQ(decision.bucket.tokens, 7.0);
  EXPECT_EQ(decision.bucket.last_update, Seconds{5});
  EXPECT_EQ(decision.bucket.request_count, 3U);
}

TEST(BucketTable, AdmitAnswersAndCountsAsCheckDoes) {
  BucketTable checked({}, {});
  BucketTable admitted({}, {});
  for (int i = 0; i < 500; ++i) {
    const std::string key = numbered("k", static_cast<std::size_t>(i * 7 % 20));
    const double cost = 1 + i % 3;
    const Seconds now{i * 0.01};
    ASSERT_EQ(checked.check(key_of(key), kConfig, now, cost).value().admitted,
              admitted.admit(key_of(key), kConfig, now, cost).value());
  }
  EXPECT_EQ(checked.counters().allowed, admitted.counters().allowed);
  EXPECT_EQ(checked.counters().denied, admitted.counters().denied);
  EXPECT_GT(admitted.counters().denied, 0U);
}

TEST(BucketTable, TheConfigOfEachCallJudgesIt) {
  BucketTable table({}, {});
  ASSERT_TRUE(admits(table, "a", 0));  // 9 tokens left
  const BucketConfig tight = BucketConfig::make_unchecked(60, 2, 60);
  EXPECT_TRUE(admits(table, "a", 0, tight, 2));
  EXPECT_FALSE(admits(table, "a", 0, tight));
  EXPECT_FALSE(admits(table, "a", 0));  // what the smaller burst cut off does not come back
  EXPECT_TRUE(admits(table, "a", 5, kConfig, 5));
}

// F14: a limiter without a rate denies and counts each denial once.
TEST(BucketTable, ARateOfZeroDeniesWithoutFailing) {
  BucketTable table({}, {});
  const BucketConfig none = BucketConfig::make_unchecked(0, 1, 60);
  EXPECT_TRUE(admits(table, "a", 0, none));
  EXPECT_FALSE(admits(table, "a", 1e9, none));
  EXPECT_EQ(table.counters().denied, 1U);
}

// F19: the empty text is a key like any other.
TEST(BucketTable, TheEmptyKeyIsAKey) {
  BucketTable table({}, {});
  ASSERT_TRUE(admits(table, "", 0));
  ASSERT_TRUE(admits(table, "a", 0));
  EXPECT_TRUE(table.erase(key_of("")));
  EXPECT_FALSE(table.erase(key_of("")));
  EXPECT_EQ(keys_of(table), std::vector<std::string>{"a"});
}

TEST(BucketTable, TakeSaysHowLongAndCountsNoDenial) {
  BucketTable table({}, {});
  EXPECT_EQ(table.take(key_of("a"), kConfig, Seconds{0}, 10).value(), Seconds{0});
  const Seconds wait = table.take(key_of("a"), kConfig, Seconds{0}, 3).value();
  EXPECT_DOUBLE_EQ(wait.count(), 3.0);
  EXPECT_EQ(table.take(key_of("a"), kConfig, wait, 3).value(), Seconds{0});
  EXPECT_EQ(table.counters().allowed, 2U);
  EXPECT_EQ(table.counters().denied, 0U);
}

TEST(BucketTable, ATakeThatNoWaitWouldBringIsAnErrorAndChangesNothing) {
  BucketTable by_burst({}, {});
  EXPECT_EQ(by_burst.take(key_of("a"), kConfig, Seconds{0}, 11).error().code, Errc::invalid_argument);
  BucketTable by_window({}, {.enforce_window = true});
  const BucketConfig config = BucketConfig::make_unchecked(5, 10, 60);
  EXPECT_EQ(by_window.take(key_of("a"), config, Seconds{0}, 6).error().code, Errc::invalid_argument);
  EXPECT_EQ(by_burst.size() + by_window.size(), 0U);
  EXPECT_EQ(by_window.take(key_of("a"), config, Seconds{0}, 5).value(), Seconds{0});
}

// Without slack a window that ends at this instant is not over yet, and leaves nothing to wait for.
TEST(BucketTable, ATakeThatWasRefusedNeverSaysZero) {
  BucketTable table({}, {.slack = Seconds{0}, .enforce_window = true});
  const BucketConfig config = BucketConfig::make_unchecked(1, 10, 60);
  ASSERT_EQ(table.take(key_of("a"), config, Seconds{0}, 1).value(), Seconds{0});
  const Seconds wait = table.take(key_of("a"), config, Seconds{60}, 1).value();
  EXPECT_GT(wait, Seconds{0});
  EXPECT_LT(wait, Seconds{0.001});
  EXPECT_EQ(table.counters().allowed, 1U);
  EXPECT_EQ(table.take(key_of("a"), config, Seconds{60} + wait, 1).value(), Seconds{0});
}

TEST(BucketTable, GiveBackUndoesATake) {
  BucketTable table({}, {});
  ASSERT_EQ(table.take(key_of("a"), kConfig, Seconds{0}, 4).value(), Seconds{0});
  table.give_back(key_of("a"), kConfig, 4);
  const Bucket bucket = table.peek(key_of("a")).value();
  EXPECT_EQ(bucket.tokens, 10.0);
  EXPECT_EQ(bucket.request_count, 0U);
  EXPECT_EQ(bucket.full_at, bucket.last_update);
  EXPECT_EQ(table.counters().allowed, 0U);
}

TEST(BucketTable, GiveBackNeverOverfills) {
  BucketTable table({}, {});
  ASSERT_TRUE(admits(table, "a", 0));
  table.give_back(key_of("a"), kConfig, 500);
  table.give_back(key_of("a"), kConfig, 500);
  EXPECT_EQ(table.peek(key_of("a"))->tokens, 10.0);
  EXPECT_EQ(table.peek(key_of("a"))->request_count, 0U);
  EXPECT_EQ(table.counters().allowed, 0U);
  table.give_back(key_of("evicted meanwhile"), kConfig, 1);
  EXPECT_EQ(table.size(), 1U);
}

TEST(BucketTable, PutWritesAndPeekReads) {
  BucketTable table({}, {});
  EXPECT_FALSE(table.peek(key_of("a")));
  ASSERT_TRUE(table.put(key_of("a"), Bucket(2.5, Seconds{100}), kConfig, Seconds{100}));
  EXPECT_EQ(table.peek(key_of("a"))->tokens, 2.5);
  EXPECT_DOUBLE_EQ(table.peek(key_of("a"))->full_at.count(), 107.5);
  ASSERT_TRUE(table.put(key_of("a"), Bucket(1.0, Seconds{100}), kConfig, Seconds{100}));
  EXPECT_EQ(table.size(), 1U);
  EXPECT_TRUE(admits(table, "a", 100));
  EXPECT_FALSE(admits(table, "a", 100));
}

TEST(BucketTable, MoreTokensThanABucketHoldsAreCutAtTheNextCheck) {
  BucketTable table({}, {});
  ASSERT_TRUE(table.put(key_of("a"), Bucket(1000.0, Seconds{0}), kConfig, Seconds{0}));
  EXPECT_FALSE(admits(table, "a", 0, kConfig, 11));
  EXPECT_EQ(table.peek(key_of("a"))->tokens, 10.0);
}

TEST(BucketTable, KeysComeInInsertionOrder) {
  BucketTable table({}, {});
  for (const char* key : {"c", "a", "b"}) {
    ASSERT_TRUE(admits(table, key, 0));
  }
  ASSERT_TRUE(admits(table, "c", 1));
  EXPECT_EQ(keys_of(table), (std::vector<std::string>{"c", "a", "b"}));
}

// ---- sweeping

// F18: idle alone is no reason to forget a bucket.
TEST(Sweep, RemovesOnlyWhatIsIdleAndFullAgain) {
  BucketTable table({}, {});
  const BucketConfig slow = BucketConfig::make_unchecked(1, 100, 60);
  ASSERT_TRUE(admits(table, "slow", 0, slow, 100));
  ASSERT_TRUE(admits(table, "quick", 0));
  ASSERT_TRUE(admits(table, "fresh", 595));
  EXPECT_EQ(table.sweep(0, 1000, Seconds{601}, Seconds{600}), std::nullopt);
  EXPECT_EQ(keys_of(table), (std::vector<std::string>{"slow", "fresh"}));
  EXPECT_EQ(table.counters().cleaned, 1U);
  const Decision decision = table.check(key_of("slow"), slow, Seconds{601}, 1).value();
  EXPECT_NEAR(decision.bucket.tokens, 601.0 / 60 - 1, 1e-9);
}

TEST(Sweep, GoesOnWhereItStopped) {
  BucketTable table({}, {});
  for (std::size_t i = 0; i < 1000; ++i) {
    ASSERT_TRUE(admits(table, numbered("k", i), 0));
  }
  std::optional<BucketTable::Slot> from = 0;
  int steps = 0;
  while (from) {
    const std::size_t before = table.size();
    from = table.sweep(*from, 64, Seconds{1000}, Seconds{10});
    EXPECT_LE(before - table.size(), 64U);
    ++steps;
  }
  EXPECT_EQ(steps, 16);
  EXPECT_EQ(table.size(), 0U);
  EXPECT_EQ(table.counters().cleaned, 1000U);
}

TEST(Sweep, StartsAnywhere) {
  BucketTable table({}, {});
  EXPECT_EQ(table.sweep(0, 10, Seconds{1}, Seconds{0}), std::nullopt);
  ASSERT_TRUE(admits(table, "a", 0));
  EXPECT_EQ(table.sweep(4'000'000'000U, 10, Seconds{1e6}, Seconds{0}), std::nullopt);
  EXPECT_EQ(table.size(), 1U);
  EXPECT_EQ(table.sweep(0, 4'000'000'000U, Seconds{1e6}, Seconds{0}), std::nullopt);
  EXPECT_EQ(table.size(), 0U);
}

// ---- who is told

struct Gone {
  std::vector<std::string> keys;
  static void note(void* context, const KeyView& key) { static_cast<Gone*>(context)->keys.emplace_back(key.text); }
};

TEST(OnErase, HearsOfEveryKeyThatLeaves) {
  BucketTable table({.max_buckets = 4}, {});
  Gone gone;
  table.on_erase(Gone::note, &gone);
  for (const char* key : {"a", "b", "c", "d", "e"}) {  // "a" makes room for "e"
    ASSERT_TRUE(admits(table, key, 0));
  }
  EXPECT_TRUE(table.erase(key_of("c")));
  EXPECT_EQ(gone.keys, (std::vector<std::string>{"a", "c"}));
  ASSERT_TRUE(admits(table, "b", 990));
  static_cast<void>(table.sweep(0, 100, Seconds{1000}, Seconds{100}));
  std::sort(gone.keys.begin(), gone.keys.end());
  EXPECT_EQ(gone.keys, (std::vector<std::string>{"a", "c", "d", "e"}));
  table.clear();
  EXPECT_EQ(gone.keys.back(), "b");
  EXPECT_EQ(table.size(), 0U);
}

// ---- threads

// One table belongs to one lock; two tables share nothing.
TEST(BucketTable, TwoTablesInTwoThreadsAreIndependent) {
  const auto work = [](BucketTable& table) {
    for (std::size_t i = 0; i < 50'000; ++i) {
      static_cast<void>(
          table.check(key_of(numbered("k", i % 700)), kConfig, Seconds{static_cast<double>(i) * 1e-3}, 1));
    }
  };
  BucketTable first({.max_buckets = 500}, {});
  BucketTable second({.max_buckets = 500}, {});
  std::thread thread(work, std::ref(first));
  work(second);
  thread.join();
  EXPECT_EQ(first.counters().allowed, second.counters().allowed);
  EXPECT_EQ(first.counters().evicted, second.counters().evicted);
  EXPECT_EQ(keys_of(first), keys_of(second));
}

}  // namespace
}  // namespace peercore::ratelimit

// What the table does at its bounds: which bucket goes, how long finding it takes, how much memory is held.

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <list>
#include <random>
#include <string>
#include <vector>

#include "base/test_keys.hpp"
#include "gtest/gtest.h"
#include "peercore/ratelimit/bucket_table.hpp"

namespace peercore::ratelimit {
namespace {

using test::key_of;
using test::numbered;

const BucketConfig kConfig = BucketConfig::make_unchecked(60, 10, 60);

void use(BucketTable& table, std::string_view key, double now, double cost = 1) {
  ASSERT_TRUE(table.check(key_of(key), kConfig, Seconds{now}, cost));
}

bool knows(const BucketTable& table, std::string_view key) { return table.peek(key_of(key)).has_value(); }

TEST(Eviction, TheBoundHolds) {
  BucketTable table({.max_buckets = 100}, {});
  for (std::size_t i = 0; i < 5000; ++i) {
    use(table, numbered("k", i), 0);
    ASSERT_LE(table.size(), 100U);
  }
  EXPECT_EQ(table.size(), 100U);
  EXPECT_EQ(table.counters().evicted, 4900U);
  EXPECT_EQ(table.counters().cleaned, 0U);
}

TEST(Eviction, UnlimitedKeepsAll) {
  BucketTable table({.max_buckets = Limits::kUnlimited, .max_key_bytes = Limits::kUnlimited}, {});
  for (std::size_t i = 0; i < 150'000; ++i) {
    use(table, numbered("k", i), 0);
  }
  EXPECT_EQ(table.size(), 150'000U);
  EXPECT_EQ(table.counters().evicted, 0U);
}

TEST(Eviction, ATableForOneHoldsOne) {
  BucketTable table({.max_buckets = 1}, {});
  use(table, "a", 0);
  use(table, "b", 0);
  EXPECT_FALSE(knows(table, "a"));
  EXPECT_TRUE(knows(table, "b"));
}

TEST(Eviction, WithoutAFullBucketTheLeastRecentlyUsedGoes) {
  BucketTable table({.max_buckets = 200}, {});
  std::list<std::string> recency;
  std::mt19937 random(23);  // NOLINT(cert-msc51-cpp): the same run every time
  for (int step = 0; step < 20'000; ++step) {
    const std::string key = numbered("k", random() % 260);
    if (!knows(table, key) && table.size() == 200) {
      ASSERT_TRUE(knows(table, recency.front()));
      use(table, key, 0);
      ASSERT_FALSE(knows(table, recency.front()));
      recency.pop_front();
    } else {
      use(table, key, 0);
    }
    recency.remove(key);
    recency.push_back(key);
  }
  EXPECT_EQ(table.size(), recency.size());
}

// In tables up to the probe's length full ones are found wherever they are: forgetting one costs nobody anything.
TEST(Eviction, AFullBucketGoesFirstExactlyInSmallTables) {
  for (std::size_t size = 2; size <= BucketTable::kEvictionProbe; ++size) {
    for (const std::size_t full : {std::size_t{1}, size / 2, size - 1}) {
      BucketTable table({.max_buckets = size}, {});
      for (std::size_t i = 0; i < size; ++i) {
        use(table, numbered("k", i), 0, i == full ? 1 : 10);
      }
      use(table, "new", 2);  // by now one token is earned: k<full> holds 10 again, the others 2
      ASSERT_FALSE(knows(table, numbered("k", full))) << size;
      ASSERT_EQ(table.size(), size);
      use(table, "next", 2);
      ASSERT_FALSE(knows(table, "k0")) << size;
    }
  }
}

// Beyond that a hand circles: all full ones are found before a second round is over, whatever the size.
TEST(Eviction, TheHandFindsFullBucketsInLargeTables) {
  constexpr std::size_t kSize = 6400;
  BucketTable table({.max_buckets = kSize}, {});
  for (std::size_t i = 0; i < kSize; ++i) {
    use(table, numbered("k", i), 0, i % 50 == 49 ? 1 : 10);
  }
  for (std::size_t i = 0; i < kSize / 50; ++i) {  // in every 64 slots there is a full one
    ASSERT_TRUE(table.check(key_of(numbered("new", i)), kConfig, Seconds{2}, 10).value().admitted);
  }
  std::size_t full_left = 0;
  for (std::size_t i = 49; i < kSize; i += 50) {
    full_left += knows(table, numbered("k", i)) ? 1U : 0U;
  }
  EXPECT_EQ(full_left, 0U);
}

// A table full of drained buckets is the worst case: nothing to find. Its cost must not depend on the size.
TEST(Eviction, LooksAtNoMoreThanTheProbeWhateverTheSize) {
  const auto cost_of_evictions = [](std::size_t size) {
    BucketTable table({.max_buckets = size}, {});
    for (std::size_t i = 0; i < size; ++i) {
      use(table, numbered("k", i), 0, 10);
    }
    const auto start = std::chrono::steady_clock::now();
    for (std::size_t i = 0; i < 2000; ++i) {
      use(table, numbered("n", i), 0, 10);
    }
    EXPECT_EQ(table.counters().evicted, 2000U);
    return std::chrono::steady_clock::now() - start;
  };
  // A search of the whole table would be 1000 times as long; caches and a busy machine are given 100.
  const auto small = std::min({cost_of_evictions(200), cost_of_evictions(200), cost_of_evictions(200)});
  EXPECT_LT(cost_of_evictions(200'000), small * 100);
}

// F10: someone who makes up keys can neither fill the memory nor get more than the bound's worth of buckets.
TEST(Bounds, AMillionInventedKeysLeaveMemoryFlat) {
  BucketTable table({.max_buckets = 10'000}, {});
  std::size_t settled = 0;
  for (std::size_t i = 0; i < 1'000'000; ++i) {
    use(table, numbered("198.51.100.", 10'000'000 + i), static_cast<double>(i) * 1e-5);
    if (i == 30'000) {
      settled = table.memory_bytes();
    }
  }
  EXPECT_LE(table.memory_bytes(), settled + 4 * 4096);
}

TEST(Bounds, AnIdleKeyCostsNoMoreThanPromised) {
  BucketTable table({}, {});
  std::size_t text = 0;
  for (std::size_t i = 0; i < 100'000; ++i) {
    const std::string key = numbered("203.0.113.7:/peers/", i);
    text += key.size();
    use(table, key, 0);
  }
  EXPECT_LE(table.memory_bytes() - text, 82U * 100'000);
}

TEST(Bounds, KeyBytesAreBoundedByEviction) {
  BucketTable table({.max_key_bytes = 10'000}, {});
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < 500; ++i) {
    use(table, std::string(i % 700, static_cast<char>('a' + i % 26)), 0);
    bytes = 0;
    for (const KeyView& key : table.keys()) {
      bytes += key.text.size();
    }
    ASSERT_LE(bytes, 10'000U);
  }
  EXPECT_GT(bytes, 9'000U);
  EXPECT_GT(table.counters().evicted, 0U);
}

// Keeping one key on each page alive while the keys' length changes leaves pages nearly empty. What they take is
// bounded too.
TEST(Bounds, PagesLeftHalfEmptyAreBoundedByEviction) {
  const Limits limits{.max_buckets = 20'000, .max_key_bytes = 1'000'000};
  BucketTable table(limits, {});
  std::size_t most = 0;
  for (std::size_t length = 8; length < 500; length += 8) {
    for (std::size_t i = 0; i < 2'000; ++i) {
      use(table, numbered(std::string(length, 'k'), i), static_cast<double>(length));
      most = std::max(most, table.text_page_bytes());
    }
    for (const KeyView& key : table.keys()) {
      const auto number = std::stoul(std::string(key.text.substr(key.text.find_last_not_of("0123456789") + 1)));
      if (number % (4096 / (length + 16) + 1) != 0) {
        table.erase(KeyView(key_of(std::string(key.text))));
      }
    }
  }
  EXPECT_GT(most, 2 * limits.max_key_bytes);
  EXPECT_LE(most, limits.max_key_page_bytes() + 4096);
  EXPECT_GT(table.counters().evicted, 0U);
}

TEST(Bounds, AKeyThatNeverFitsIsRefusedAndChangesNothing) {
  BucketTable table({.max_key_bytes = 100}, {});
  use(table, "known", 0);
  const auto refused = table.check(key_of(std::string(101, 'x')), kConfig, Seconds{0}, 1);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::key_too_long);
  EXPECT_EQ(refused.error().message(), "key of 101 bytes: at most 100 are kept");
  EXPECT_EQ(table.admit(key_of(std::string(101, 'x')), kConfig, Seconds{0}, 1).error().code, Errc::key_too_long);
  EXPECT_EQ(table.take(key_of(std::string(101, 'x')), kConfig, Seconds{0}, 1).error().code, Errc::key_too_long);
  EXPECT_EQ(table.put(key_of(std::string(101, 'x')), {}, kConfig, Seconds{0}).error().code, Errc::key_too_long);
  EXPECT_TRUE(knows(table, "known"));
  EXPECT_EQ(table.counters().evicted, 0U);
  EXPECT_EQ(table.counters().denied, 0U);
  use(table, std::string(100, 'x'), 0);
  EXPECT_EQ(table.size(), 1U);
}

// Key lengths in phases, chosen to leave pages of the wrong size behind.
TEST(Bounds, KeyLengthPhasesLeaveMemoryFlat) {
  BucketTable table({.max_buckets = 2000}, {});
  std::size_t worst = 0;
  for (int round = 0; round < 3; ++round) {
    for (std::size_t length = 16; length <= 496; length += 16) {
      for (std::size_t i = 0; i < 2000; ++i) {
        std::string key = numbered("", 100'000 * length + i);
        key.resize(length, '.');
        use(table, key, 0);
      }
      worst = std::max(worst, table.memory_bytes());
    }
  }
  EXPECT_LE(worst, 2000 * (512 + 128 + 82));
}

}  // namespace
}  // namespace peercore::ratelimit

#include "peercore/base/text_pool.hpp"

#include <cstddef>
#include <cstdint>
#include <deque>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace peercore {
namespace {

using namespace std::string_view_literals;

// What the contract promises per text: 4 bytes and rounding up to 8.
std::size_t block_bytes(std::size_t text) { return (text + 4 + 7) / 8 * 8; }

constexpr std::size_t kPage = 4096;
constexpr std::size_t kPageDescription = 64;  // generous: what a page may cost beside its bytes

TEST(TextPool, GivesBackEveryLengthWithItsTag) {
  TextPool pool;
  std::vector<std::pair<TextPool::Handle, std::string>> stored;
  for (std::size_t length = 0; length < 1100; ++length) {
    std::string text(length, static_cast<char>('a' + length % 26));
    stored.emplace_back(pool.store(text, static_cast<std::uint8_t>(length % 8)), text);
  }
  for (std::size_t i = 0; i < stored.size(); ++i) {
    EXPECT_EQ(pool.text(stored[i].first), stored[i].second);
    EXPECT_EQ(pool.tag(stored[i].first), i % 8);
  }
}

TEST(TextPool, KeepsBytesAsTheyAre) {
  TextPool pool;
  const auto zeros = pool.store("a\0b\0"sv, 7);
  const auto bytes = pool.store("\xff\x80\xc3"sv, 0);
  const auto empty = pool.store({}, 3);
  EXPECT_EQ(pool.text(zeros), "a\0b\0"sv);
  EXPECT_EQ(pool.text(bytes), "\xff\x80\xc3"sv);
  EXPECT_EQ(pool.text(empty), ""sv);
  EXPECT_EQ(pool.tag(zeros), 7);
  EXPECT_EQ(pool.tag(empty), 3);
}

TEST(TextPool, HoldsComparesTextAndTag) {
  TextPool pool;
  const auto handle = pool.store("abc", 1);
  EXPECT_TRUE(pool.holds(handle, "abc", 1));
  EXPECT_FALSE(pool.holds(handle, "abc", 2));
  EXPECT_FALSE(pool.holds(handle, "abd", 1));
  EXPECT_FALSE(pool.holds(handle, "ab", 1));
  EXPECT_FALSE(pool.holds(handle, "abcd", 1));
  const auto empty = pool.store({}, 0);
  EXPECT_TRUE(pool.holds(empty, {}, 0));
  EXPECT_TRUE(pool.holds(empty, "", 0));
  EXPECT_FALSE(pool.holds(empty, {}, 1));
}

TEST(TextPool, HoldsVeryLongTexts) {
  TextPool pool;
  const std::string text(3'000'001, 'x');
  const auto handle = pool.store(text, 5);
  EXPECT_EQ(pool.text(handle), text);
  EXPECT_EQ(pool.tag(handle), 5);
  pool.release(handle);
  EXPECT_LE(pool.memory_bytes(), kPageDescription);
}

TEST(TextPool, ViewsOutliveOtherStores) {
  TextPool pool;
  const std::string_view first = pool.text(pool.store("first", 0));
  for (int i = 0; i < 20'000; ++i) {
    static_cast<void>(pool.store(std::to_string(i), 0));
  }
  EXPECT_EQ(first, "first");
}

TEST(TextPool, CountsTextBytesAndReturnsPages) {
  TextPool pool;
  std::vector<TextPool::Handle> handles;
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < 5000; ++i) {
    const std::string text(i % 700, 'k');
    bytes += text.size();
    handles.push_back(pool.store(text, 0));
  }
  EXPECT_EQ(pool.text_bytes(), bytes);
  const std::size_t pages = pool.memory_bytes() / kPage + 1500;
  for (const auto handle : handles) {
    pool.release(handle);
  }
  EXPECT_EQ(pool.text_bytes(), 0U);
  EXPECT_LE(pool.memory_bytes(), pages * kPageDescription * 2);
}

TEST(TextPool, OverheadIsFourBytesAndRounding) {
  constexpr std::size_t kTexts = 20'000;
  for (const std::size_t length : {0U, 4U, 12U, 13U, 21U, 60U, 200U, 508U}) {
    TextPool pool;
    const std::string text(length, 't');
    for (std::size_t i = 0; i < kTexts; ++i) {
      static_cast<void>(pool.store(text, 0));
    }
    // A page's last block may not fit; the descriptions may have doubled just now.
    const std::size_t per_page = kPage / block_bytes(length);
    const std::size_t pages = kTexts / per_page + 1;
    EXPECT_LE(pool.memory_bytes(), pages * (kPage + 2 * kPageDescription)) << length;
  }
}

TEST(TextPool, ReleasedBlocksAreUsedAgain) {
  TextPool pool;
  std::deque<TextPool::Handle> live;
  for (int i = 0; i < 1000; ++i) {
    live.push_back(pool.store("sixteen bytes ..", 0));
  }
  const std::size_t memory = pool.memory_bytes();
  for (int i = 0; i < 100'000; ++i) {
    pool.release(live.front());
    live.pop_front();
    live.push_back(pool.store("sixteen bytes ..", 0));
  }
  EXPECT_LE(pool.memory_bytes(), memory + kPage + kPageDescription);
}

// Someone who chooses keys goes through all lengths, one after the other: pages of one size must serve the next one.
TEST(TextPool, LengthPhasesLeaveMemoryFlat) {
  constexpr std::size_t kLive = 2000;
  TextPool pool;
  std::deque<TextPool::Handle> live;
  std::size_t worst = 0;
  for (int round = 0; round < 3; ++round) {
    for (std::size_t length = 4; length <= 508; length += 8) {
      const std::string text(length, 'p');
      for (std::size_t i = 0; i < kLive; ++i) {
        if (live.size() == kLive) {
          pool.release(live.front());
          live.pop_front();
        }
        live.push_back(pool.store(text, 0));
        worst = std::max(worst, pool.memory_bytes());
      }
    }
  }
  const std::size_t pages = kLive / (kPage / 512) + 2;  // the longest length alone, and a page of the one before
  EXPECT_LE(worst, pages * (kPage + 2 * kPageDescription));
}

// The other worst case: one survivor in each page. A page is held only while something lives in it.
TEST(TextPool, SurvivorsHoldOnePageEach) {
  TextPool pool;
  std::size_t survivors = 0;
  for (std::size_t length = 4; length <= 508; length += 8) {
    const std::size_t per_page = kPage / block_bytes(length);
    std::vector<TextPool::Handle> phase;
    for (std::size_t i = 0; i < per_page * 10; ++i) {
      phase.push_back(pool.store(std::string(length, 's'), 0));
    }
    for (std::size_t i = 0; i < phase.size(); ++i) {
      if (i % per_page != 0) {
        pool.release(phase[i]);
      }
    }
    survivors += 10;
  }
  EXPECT_LE(pool.memory_bytes(), survivors * (kPage + 2 * kPageDescription));
}

TEST(TextPool, BehavesLikeStringsUnderRandomUse) {
  std::mt19937 random(7);  // NOLINT(cert-msc51-cpp): the same run every time
  TextPool pool;
  std::vector<std::pair<TextPool::Handle, std::string>> live;
  std::size_t bytes = 0;
  for (int step = 0; step < 60'000; ++step) {
    const bool growing = step / 5000 % 2 == 0;
    if (live.empty() || random() % 10 < (growing ? 7U : 3U)) {
      std::string text(random() % (random() % 16 == 0 ? 6000 : 90), static_cast<char>('a' + random() % 26));
      bytes += text.size();
      live.emplace_back(pool.store(text, static_cast<std::uint8_t>(text.size() % 8)), text);
    } else {
      std::swap(live[random() % live.size()], live.back());
      const auto& [handle, text] = live.back();
      ASSERT_EQ(pool.text(handle), text);
      ASSERT_EQ(pool.tag(handle), text.size() % 8);
      bytes -= text.size();
      pool.release(handle);
      live.pop_back();
    }
    ASSERT_EQ(pool.text_bytes(), bytes);
  }
  for (const auto& [handle, text] : live) {
    EXPECT_EQ(pool.text(handle), text);
  }
}

TEST(TextPool, MovedPoolKeepsItsTexts) {
  TextPool pool;
  const auto handle = pool.store("kept", 2);
  const TextPool other = std::move(pool);
  EXPECT_EQ(other.text(handle), "kept");
  EXPECT_EQ(other.tag(handle), 2);
  EXPECT_FALSE(other.full());
}

}  // namespace
}  // namespace peercore

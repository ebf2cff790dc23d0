#include "peercore/base/key_table.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/test_keys.hpp"
#include "gtest/gtest.h"

namespace peercore {
namespace {

using test::key_of;
using test::numbered;

// Shaped like a bucket: a constructor of its own and four bytes of tail padding that the table uses.
struct Item {
  Item() noexcept {}
  explicit Item(std::uint64_t number_) noexcept : number(number_), check(static_cast<std::uint32_t>(~number_)) {}

  std::uint64_t number = 0;
  std::uint32_t check = 0;
};

using Table = KeyTable<Item>;

std::vector<std::string> texts_of(const Table& table, const std::vector<Table::Slot>& slots) {
  std::vector<std::string> texts;
  for (const auto slot : slots) {
    texts.emplace_back(table.key(slot).text);
  }
  return texts;
}

// Empties the table from its least recently used end.
std::vector<std::string> drain(Table& table) {
  std::vector<std::string> texts;
  while (table.size() > 0) {
    texts.emplace_back(table.key(table.least_recent()).text);
    table.erase(table.least_recent());
  }
  return texts;
}

TEST(KeyTable, FindsWhatWasInserted) {
  Table table;
  EXPECT_EQ(table.find(key_of("a")), Table::kNone);
  EXPECT_EQ(table.least_recent(), Table::kNone);
  const auto slot = table.insert(key_of("a"), 1U);
  EXPECT_EQ(table.find(key_of("a")), slot);
  EXPECT_EQ(table.value(slot).number, 1U);
  EXPECT_EQ(table.find(key_of("b")), Table::kNone);
  EXPECT_EQ(table.find(key_of("")), Table::kNone);
  EXPECT_EQ(table.size(), 1U);
  EXPECT_EQ(table.text_bytes(), 1U);
  EXPECT_FALSE(table.full());
}

TEST(KeyTable, SameBytesUnderTwoTagsAreTwoKeys) {
  Table table;
  std::vector<Table::Slot> slots;
  for (std::uint8_t tag = 0; tag < 8; ++tag) {
    slots.push_back(table.insert(key_of("127.0.0.1", tag), tag));
  }
  for (std::uint8_t tag = 0; tag < 8; ++tag) {
    EXPECT_EQ(table.find(key_of("127.0.0.1", tag)), slots[tag]);
    EXPECT_EQ(table.key(slots[tag]).tag, tag);
    EXPECT_EQ(table.value(slots[tag]).number, tag);
  }
  table.erase(slots[3]);
  EXPECT_EQ(table.find(key_of("127.0.0.1", 3)), Table::kNone);
  EXPECT_EQ(table.find(key_of("127.0.0.1", 4)), slots[4]);
}

TEST(KeyTable, GrowthKeepsSlotsAndFindsAll) {
  constexpr std::size_t kKeys = 100'000;
  Table table;
  std::vector<Table::Slot> slots;
  for (std::size_t i = 0; i < kKeys; ++i) {
    slots.push_back(table.insert(key_of(numbered("client-", i)), i));
  }
  ASSERT_EQ(table.size(), kKeys);
  for (std::size_t i = 0; i < kKeys; ++i) {
    ASSERT_EQ(table.find(key_of(numbered("client-", i))), slots[i]);
    ASSERT_EQ(table.value(slots[i]).number, i);
    ASSERT_EQ(table.value(slots[i]).check, static_cast<std::uint32_t>(~i));
  }
  EXPECT_EQ(table.find(key_of(numbered("client-", kKeys))), Table::kNone);
}

TEST(KeyTable, AnEntryCostsWhatTheHeaderSays) {
  constexpr std::size_t kEntryAndLinks = sizeof(Item) + 20;
  constexpr std::size_t kIndex = 10;
  constexpr std::size_t kTextOverhead = 4 + 7;
  Table table;
  for (std::size_t i = 0; i < 200'000; ++i) {
    static_cast<void>(table.insert(key_of(numbered("10.0.0.", i)), i));
    if (i >= 10'000 && i % 1000 == 0) {
      const std::size_t beside_text = table.memory_bytes() - table.text_bytes();
      // The last chunk and page, and vectors that have just doubled, are spread over the entries.
      ASSERT_LE(beside_text, (i + 1) * (kEntryAndLinks + kIndex + kTextOverhead + 2)) << i;
    }
  }
}

TEST(KeyTable, ClearGivesTheMemoryBack) {
  Table table;
  const std::size_t empty = table.memory_bytes();
  for (std::size_t i = 0; i < 10'000; ++i) {
    static_cast<void>(table.insert(key_of(numbered("k", i)), i));
  }
  table.clear();
  EXPECT_EQ(table.size(), 0U);
  EXPECT_EQ(table.text_bytes(), 0U);
  EXPECT_EQ(table.memory_bytes(), empty);
  EXPECT_EQ(table.slot_end(), 0U);
  EXPECT_EQ(table.least_recent(), Table::kNone);
  EXPECT_EQ(table.find(key_of("k1")), Table::kNone);
  EXPECT_EQ(table.value(table.insert(key_of("k1"), 9U)).number, 9U);
}

TEST(KeyTable, EveryKeyWithTheSameHash) {
  constexpr std::size_t kKeys = 400;
  Table table;
  const auto collide = [](const std::string& text) { return KeyView{text, 0xDEADBEEFDEADBEEF, 0}; };
  std::vector<std::string> texts;
  for (std::size_t i = 0; i < kKeys; ++i) {
    texts.push_back(numbered("key", i));
    static_cast<void>(table.insert(collide(texts.back()), i));
  }
  std::shuffle(texts.begin(), texts.end(), std::mt19937(3));
  while (!texts.empty()) {
    table.erase(table.find(collide(texts.back())));
    ASSERT_EQ(table.find(collide(texts.back())), Table::kNone);
    texts.pop_back();
    for (const auto& text : texts) {
      ASSERT_NE(table.find(collide(text)), Table::kNone) << text;
    }
  }
}

// Homes at both ends of the index: runs cross its end, where a gap is closed across the wrap.
TEST(KeyTable, ErasingClosesGapsAcrossTheEndOfTheIndex) {
  for (std::uint32_t seed = 0; seed < 200; ++seed) {
    std::mt19937 random(seed);
    Table table;
    std::map<std::string, std::uint64_t> model;
    for (int step = 0; step < 300; ++step) {
      const std::string text = numbered("", random() % 12);
      const KeyView key{text, (13 + text.size() * 2 + static_cast<unsigned char>(text.back()) % 4) % 16, 0};
      const auto slot = table.find(key);
      ASSERT_EQ(slot != Table::kNone, model.contains(text));
      if (slot == Table::kNone) {
        static_cast<void>(table.insert(key, static_cast<std::uint64_t>(step)));
        model[text] = static_cast<std::uint64_t>(step);
      } else {
        ASSERT_EQ(table.value(slot).number, model[text]);
        table.erase(slot);
        model.erase(text);
      }
      ASSERT_EQ(table.size(), model.size());
    }
  }
}

TEST(KeyTable, HashesThatDifferOnlyInTheirUpperHalfAreToldApart) {
  Table table;
  const KeyView low{"low", 0x1, 0};
  const KeyView high{"high", 0x100000000, 0};  // folds to the same 32 bits
  const auto a = table.insert(low, 1U);
  const auto b = table.insert(high, 2U);
  EXPECT_EQ(table.find(low), a);
  EXPECT_EQ(table.find(high), b);
  table.erase(a);
  EXPECT_EQ(table.find(high), b);
}

TEST(KeyTable, AKeyReadBackFindsItsEntry) {
  Table table;
  const auto slot = table.insert(key_of(std::string(600, 'L'), 2), 1U);
  const KeyView key = table.key(slot);
  EXPECT_EQ(key.text, std::string(600, 'L'));
  EXPECT_EQ(key.tag, 2);
  EXPECT_EQ(table.find(key), slot);
}

TEST(KeyTable, AssigningAValueLeavesTheEntryWhole) {
  Table table;
  const auto first = table.insert(key_of("first"), 1U);
  const auto second = table.insert(key_of("second"), 2U);
  for (std::uint64_t i = 0; i < 100; ++i) {
    table.value(first) = Item(i);
    ASSERT_EQ(table.find(key_of("first")), first);
    ASSERT_EQ(table.value(first).number, i);
  }
  EXPECT_EQ(texts_of(table, table.by_insertion()), (std::vector<std::string>{"first", "second"}));
  table.erase(first);
  EXPECT_EQ(table.find(key_of("second")), second);
}

TEST(KeyTable, InsertionOrderSurvivesUseAndSlotReuse) {
  Table table;
  for (const char* text : {"a", "b", "c", "d"}) {
    static_cast<void>(table.insert(key_of(text), 0U));
  }
  table.touch(table.find(key_of("a")));
  table.erase(table.find(key_of("b")));
  static_cast<void>(table.insert(key_of("e"), 0U));
  static_cast<void>(table.insert(key_of("b"), 0U));
  EXPECT_EQ(texts_of(table, table.by_insertion()), (std::vector<std::string>{"a", "c", "d", "e", "b"}));
}

TEST(KeyTable, InsertionOrderSurvivesTheEndOfTheSequence) {
  KeyTable<Item, std::uint8_t> table;
  std::list<std::string> expected;
  std::mt19937 random(11);  // NOLINT(cert-msc51-cpp): the same run every time
  for (std::size_t i = 0; i < 5000; ++i) {
    if (expected.size() == 100) {
      const auto gone = std::next(expected.begin(), static_cast<std::ptrdiff_t>(random() % expected.size()));
      table.erase(table.find(key_of(*gone)));
      expected.erase(gone);
    }
    expected.push_back(numbered("key", i));
    static_cast<void>(table.insert(key_of(expected.back()), i));
    std::vector<std::string> order;
    for (const auto slot : table.by_insertion()) {
      order.emplace_back(table.key(slot).text);
    }
    ASSERT_EQ(order, std::vector<std::string>(expected.begin(), expected.end())) << i;
  }
}

TEST(KeyTable, LeastRecentIsExact) {
  Table table;
  for (const char* text : {"a", "b", "c", "d"}) {
    static_cast<void>(table.insert(key_of(text), 0U));
  }
  table.touch(table.find(key_of("a")));              // the oldest
  table.touch(table.find(key_of("c")));              // one in the middle
  table.touch(table.find(key_of("c")));              // the newest already
  EXPECT_NE(table.find(key_of("b")), Table::kNone);  // looking is not using
  EXPECT_EQ(drain(table), (std::vector<std::string>{"b", "d", "a", "c"}));
}

TEST(KeyTable, PrefetchingIsHarmlessForAnyHash) {
  Table table;
  table.prefetch(0);
  for (std::size_t i = 0; i < 1000; ++i) {
    static_cast<void>(table.insert(key_of(numbered("k", i)), i));
    table.prefetch(key_of(numbered("k", i)).hash);
    table.prefetch(~key_of(numbered("k", i)).hash);
  }
  EXPECT_EQ(drain(table).front(), "k0");
}

TEST(KeyTable, ErasedSlotsAreUsedAgain) {
  Table table;
  for (std::size_t i = 0; i < 300; ++i) {
    static_cast<void>(table.insert(key_of(numbered("k", i)), i));
  }
  const auto slot = table.find(key_of("k7"));
  EXPECT_TRUE(table.occupied(slot));
  table.erase(slot);
  EXPECT_FALSE(table.occupied(slot));
  EXPECT_EQ(table.insert(key_of("new"), 1U), slot);
  EXPECT_EQ(table.slot_end(), 300U);
}

TEST(KeyTable, ConstantTurnoverHoldsMemoryFlat) {
  Table table;
  std::size_t memory = 0;
  for (std::size_t i = 0; i < 300'000; ++i) {
    if (table.size() == 5000) {
      table.erase(table.least_recent());
    }
    static_cast<void>(table.insert(key_of(numbered("k", 1'000'000 + i)), i));
    if (i == 20'000) {
      memory = table.memory_bytes();
    }
  }
  EXPECT_LE(table.memory_bytes(), memory + 2 * 4096);
  EXPECT_EQ(table.slot_end(), 5000U);
}

// A model of ordinary containers, with hashes from well mixed to a handful of values.
TEST(KeyTable, BehavesLikeAMapWithAListUnderRandomUse) {
  for (const std::uint64_t hash_mask : {~std::uint64_t{0}, std::uint64_t{0x7}, std::uint64_t{0xFFFFFFF0}}) {
    std::mt19937 random(5);  // NOLINT(cert-msc51-cpp): the same run every time
    Table table;
    std::map<std::string, std::uint64_t> model;
    std::list<std::string> recency;
    for (std::uint64_t step = 0; step < 20'000; ++step) {
      const std::string text = numbered("k", random() % 300);
      KeyView key = key_of(text);
      key.hash &= hash_mask;
      const auto slot = table.find(key);
      ASSERT_EQ(slot != Table::kNone, model.contains(text));
      if (slot == Table::kNone) {
        static_cast<void>(table.insert(key, step));
        model[text] = step;
        recency.push_back(text);
      } else if (random() % 2 == 0) {
        ASSERT_EQ(table.value(slot).number, model[text]);
        table.touch(slot);
        recency.remove(text);
        recency.push_back(text);
      } else {
        table.erase(slot);
        model.erase(text);
        recency.remove(text);
      }
    }
    EXPECT_EQ(drain(table), std::vector<std::string>(recency.begin(), recency.end()));
  }
}

}  // namespace
}  // namespace peercore

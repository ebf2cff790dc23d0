// KeyTable and TextPool against ordinary containers: the same operations on both, the same answers, bounded memory.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <list>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "byte_reader.hpp"
#include "peercore/base/key_table.hpp"
#include "peercore/base/text_pool.hpp"

namespace peercore::fuzz {
namespace {

// Shaped like a bucket: a constructor of its own and tail padding.
struct Item {
  Item() noexcept {}
  explicit Item(std::uint64_t number_) noexcept : number(number_), check(static_cast<std::uint32_t>(number_)) {}

  std::uint64_t number = 0;
  std::uint32_t check = 0;
};

// A sequence of one byte is renumbered all the time; the table then holds fewer than 255 entries.
using Table = KeyTable<Item, std::uint8_t>;
constexpr std::size_t kMostEntries = 200;

// Around the block sizes' and the largest block's edges.
constexpr std::array<std::size_t, 16> kLengths{0, 1, 3, 4, 5, 11, 12, 13, 20, 60, 252, 500, 507, 508, 509, 4100};
constexpr std::size_t kPage = 4096;
constexpr std::size_t kPageDescription = 64;

struct Known {
  std::string text;
  std::uint8_t tag = 0;
  std::uint64_t number = 0;
  Table::Slot slot = 0;
  TextPool::Handle handle = 0;  ///< of the same text in a pool of our own
};

class Run {
 public:
  Run(const std::uint8_t* data, std::size_t size) : input_(data, size), hash_kind_(input_.below(4)) {}

  void go() {
    while (!input_.done()) {
      step();
      check_totals();
    }
    check_all();
    drain();
  }

 private:
  using Recency = std::list<Known>;  // most recently used last

  [[nodiscard]] KeyView view(const std::string& text, std::uint8_t tag) const {
    const std::uint64_t mixed = std::hash<std::string>{}(text);
    switch (hash_kind_) {
      case 0:
        return {text, mixed, tag};
      case 1:
        return {text, 0xFFFFFFFF, tag};  // all in one place
      case 2:
        return {text, 13 + mixed % 6, tag};  // runs across the end of the first index
      default:
        return {text, mixed << 40U, tag};  // little is left of it in the lower bits
    }
  }

  static std::string name(const std::string& text, std::uint8_t tag) { return static_cast<char>('0' + tag) + text; }

  void step() {
    const std::uint8_t what = input_.below(16);
    const std::uint8_t which = input_.byte();
    std::string text(kLengths[which % 16], static_cast<char>('a' + which / 64));
    if (!text.empty()) {
      text.back() = static_cast<char>(which);
    }
    const auto tag = static_cast<std::uint8_t>(which / 16 % 3);
    const auto found = known_.find(name(text, tag));
    check_lookup(text, tag, found);
    if (what == 15 && which < 8) {
      clear();
    } else if (what == 14) {
      erase_oldest();
    } else if (found == known_.end()) {
      insert(text, tag);
    } else {
      change(found->second, what);
    }
  }

  void check_lookup(const std::string& text, std::uint8_t tag,
                    std::unordered_map<std::string, Recency::iterator>::iterator found) {
    const Table::Slot slot = table_.find(view(text, tag));
    require((slot == Table::kNone) == (found == known_.end()), "find knows exactly the keys inserted");
    require(slot == Table::kNone || slot == found->second->slot, "a slot stays where it was");
  }

  void insert(const std::string& text, std::uint8_t tag) {
    if (known_.size() >= kMostEntries) {
      erase_oldest();
    }
    const std::uint64_t number = ++inserted_;
    const Table::Slot slot = table_.insert(view(text, tag), number);
    order_.push_back({text, tag, number, slot, pool_.store(text, tag)});
    known_[name(text, tag)] = std::prev(order_.end());
    bytes_ += text.size();
    most_entries_ = std::max(most_entries_, known_.size());
  }

  void change(Recency::iterator entry, std::uint8_t what) {
    require(table_.value(entry->slot).number == entry->number, "the value is the one written");
    require(table_.value(entry->slot).check == static_cast<std::uint32_t>(entry->number), "all of it");
    if (what < 6) {
      table_.touch(entry->slot);
      order_.splice(order_.end(), order_, entry);
    } else if (what < 8) {
      table_.value(entry->slot) = Item(entry->number);  // must leave the entry's own words alone
    } else {
      erase(entry);
    }
  }

  void erase(Recency::iterator entry) {
    require(pool_.text(entry->handle) == entry->text && pool_.tag(entry->handle) == entry->tag,
            "a handle keeps its text");
    pool_.release(entry->handle);
    table_.erase(entry->slot);
    require(!table_.occupied(entry->slot), "an erased slot is free");
    bytes_ -= entry->text.size();
    known_.erase(name(entry->text, entry->tag));
    order_.erase(entry);
  }

  void erase_oldest() {
    if (!order_.empty()) {
      require(table_.least_recent() == order_.front().slot,
              "the least recently used entry is the last in order of use");
      erase(order_.begin());
    }
  }

  void clear() {
    for (const Known& entry : order_) {
      pool_.release(entry.handle);
    }
    table_.clear();
    known_.clear();
    order_.clear();
    bytes_ = 0;
    require(table_.memory_bytes() == Table().memory_bytes(), "clear gives the memory back");
  }

  void check_totals() const {
    require(table_.size() == known_.size(), "size");
    require(table_.text_bytes() == bytes_ && pool_.text_bytes() == bytes_, "text_bytes");
    // A page is held only while a text lives in it. Descriptions and the table's own part never shrink.
    std::size_t pages = 0;
    for (const Known& entry : order_) {
      pages += std::max(kPage, entry.text.size() + 4);
    }
    require(pool_.memory_bytes() <= pages + 2 * most_entries_ * kPageDescription, "memory of the pool");
    require(table_.memory_bytes() <= pages + 2 * most_entries_ * kPageDescription + 16 * 1024, "memory of the table");
  }

  void check_all() {
    std::vector<Known> by_insertion(order_.begin(), order_.end());
    std::sort(by_insertion.begin(), by_insertion.end(),
              [](const Known& a, const Known& b) { return a.number < b.number; });
    const std::vector<Table::Slot> slots = table_.by_insertion();
    require(slots.size() == by_insertion.size(), "by_insertion is complete");
    for (std::size_t i = 0; i < slots.size(); ++i) {
      const KeyView key = table_.key(slots[i]);
      require(slots[i] == by_insertion[i].slot, "by_insertion is in order");
      require(key.text == by_insertion[i].text && key.tag == by_insertion[i].tag, "a key reads back");
      require(table_.find(key) == slots[i], "a key that was read back finds its entry");
    }
  }

  void drain() {
    while (!order_.empty()) {
      erase_oldest();
    }
    require(table_.least_recent() == Table::kNone && table_.text_bytes() == 0, "nothing is left");
  }

  ByteReader input_;
  std::uint8_t hash_kind_;
  Table table_;
  TextPool pool_;
  Recency order_;
  std::unordered_map<std::string, Recency::iterator> known_;
  std::uint64_t inserted_ = 0;
  std::size_t bytes_ = 0;
  std::size_t most_entries_ = 0;
};

}  // namespace
}  // namespace peercore::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  peercore::fuzz::Run(data, size).go();
  return 0;
}

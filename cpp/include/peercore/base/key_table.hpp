#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <limits>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "peercore/base/text_pool.hpp"

namespace peercore {

/// A key as the caller sees it. The hash travels with the key because the caller usually has it already: CPython caches
/// one in every str. It must be well mixed and equal for equal keys; the table never computes one.
struct KeyView {
  std::string_view text;
  std::uint64_t hash = 0;
  /// What the bytes are (below 8), part of the key's identity: the same bytes under two tags are two keys.
  std::uint8_t tag = 0;
};

/// Hash table from byte-string keys to small values, with the order of use and the order of insertion.
///
/// Entries live in chunks and are named by 32-bit slots, so a slot stays valid until its entry is erased and growth
/// copies no value. The index is open addressing over 32-bit words that hold the slot and, in the bits the slot does
/// not need, more of the hash: a probe reads an entry only when those bits agree. Beside the key's text an entry costs
/// sizeof(Value) + 20 bytes, 5 to 10 bytes of index and the text's 4 bytes and rounding. Not thread-safe. Recency is
/// moved only by `touch`; lookups do not count as use. `Sequence` counts insertions and is renumbered when it is used
/// up, so it only has to name the living entries.
template <class Value, class Sequence = std::uint32_t>
class KeyTable {
 public:
  using Slot = std::uint32_t;
  static constexpr Slot kNone = std::numeric_limits<Slot>::max();
  /// Entries a table can name.
  static constexpr std::size_t kMaxSize = (std::size_t{1} << 31U) - 1;

  KeyTable() : index_(kFirstIndexSize, 0) {}

  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  /// True when slots or handles for texts are used up; `insert` must not be called then.
  [[nodiscard]] bool full() const noexcept { return size_ >= kMaxSize || texts_.full(); }
  [[nodiscard]] std::size_t text_bytes() const noexcept { return texts_.text_bytes(); }
  [[nodiscard]] std::size_t text_page_bytes() const noexcept { return texts_.page_bytes(); }
  [[nodiscard]] std::size_t memory_bytes() const noexcept {
    return texts_.memory_bytes() + chunks_.size() * sizeof(Chunk) + chunks_.capacity() * sizeof(void*) +
           index_.capacity() * sizeof(std::uint32_t);
  }

  [[nodiscard]] Slot find(const KeyView& key) const noexcept {
    const std::uint32_t hash = fold(key.hash);
    for (std::size_t at = hash & mask();; at = (at + 1) & mask()) {
      const std::uint32_t word = index_[at];
      if (word == 0) {
        return kNone;
      }
      if ((word ^ hash) >> slot_bits() == 0 && holds(slot_in(word), key, hash)) {
        return slot_in(word);
      }
    }
  }

  /// Starts loading what `find` and the caller will read for a key of this hash. Waits for nothing but the index.
  void prefetch(std::uint64_t key_hash) const noexcept {
    const std::uint32_t hash = fold(key_hash);
    for (std::size_t at = hash & mask(); index_[at] != 0; at = (at + 1) & mask()) {
      if ((index_[at] ^ hash) >> slot_bits() == 0) {
        const Chunk& chunk = *chunks_[slot_in(index_[at]) / kChunk];
        const std::size_t place = slot_in(index_[at]) % kChunk;
        __builtin_prefetch(&chunk.entries[place], 1);
        __builtin_prefetch(&chunk.links[place], 1);
        texts_.prefetch(chunk.names[place].text);
        return;
      }
    }
  }

  /// Adds a key that `find` did not find and makes it the most recently used one.
  template <class... Args>
  Slot insert(const KeyView& key, Args&&... args) {
    if ((size_ + 1) * 5 > index_.size() * 4) {
      grow_index();
    }
    reserve_slot();
    const TextPool::Handle text = texts_.store(key.text, key.tag);  // the last step that can fail: nothing has changed
    const Slot slot = take_slot();
    name(slot) = {fold(key.hash), text};
    static_cast<Value&>(at(slot)) = Value(std::forward<Args>(args)...);
    at(slot).sequence = next_sequence();
    index_slot(slot, name(slot).hash);
    link_front(slot);
    ++size_;
    return slot;
  }

  void erase(Slot slot) noexcept {
    remove_from_index(slot);
    unlink(slot);
    texts_.release(name(slot).text);
    name(slot).text = kNone;
    link(slot).next = free_slot_;
    free_slot_ = slot;
    --size_;
  }

  /// Drops everything and gives the memory back.
  void clear() { *this = KeyTable(); }

  [[nodiscard]] Value& value(Slot slot) noexcept { return at(slot); }
  [[nodiscard]] const Value& value(Slot slot) const noexcept { return at(slot); }
  [[nodiscard]] KeyView key(Slot slot) const noexcept {
    return {texts_.text(name(slot).text), name(slot).hash, texts_.tag(name(slot).text)};
  }

  /// Makes the entry the most recently used one.
  void touch(Slot slot) noexcept {
    if (slot != most_recent_) {
      unlink(slot);
      link_front(slot);
    }
  }
  [[nodiscard]] Slot least_recent() const noexcept { return least_recent_; }

  /// Slots run from 0 to `slot_end()`; those not `occupied` are free. For sweeps that resume where they stopped.
  [[nodiscard]] Slot slot_end() const noexcept { return slot_end_; }
  [[nodiscard]] bool occupied(Slot slot) const noexcept { return name(slot).text != kNone; }

  /// All slots in the order in which their keys were inserted.
  [[nodiscard]] std::vector<Slot> by_insertion() const {
    std::vector<Slot> slots;
    slots.reserve(size_);
    for (Slot slot = 0; slot < slot_end_; ++slot) {
      if (occupied(slot)) {
        slots.push_back(slot);
      }
    }
    std::sort(slots.begin(), slots.end(), [this](Slot a, Slot b) { return at(a).sequence < at(b).sequence; });
    return slots;
  }

 private:
  static constexpr std::size_t kChunk = 256;
  static constexpr std::size_t kFirstIndexSize = 16;

  // Derived from the value so that the sequence may use its tail padding.
  struct Entry : Value {
    Sequence sequence = 0;
  };
  // Names and links lie apart from the entries, eight to a cache line: names so that the text is found without waiting
  // for the entry, links because moving an entry to the front writes to its two neighbours.
  struct Name {
    std::uint32_t hash = 0;
    TextPool::Handle text = kNone;
  };
  struct Link {
    Slot previous = kNone;
    Slot next = kNone;
  };
  struct Chunk {
    std::array<Entry, kChunk> entries;
    std::array<Name, kChunk> names;
    std::array<Link, kChunk> links;
  };

  [[nodiscard]] static std::uint32_t fold(std::uint64_t hash) noexcept {
    return static_cast<std::uint32_t>(hash ^ (hash >> 32U));
  }
  [[nodiscard]] std::size_t mask() const noexcept { return index_.size() - 1; }
  [[nodiscard]] unsigned slot_bits() const noexcept { return slot_bits_; }
  // An index word is never 0: it stores slot + 1, and the index always has more positions than there are slots.
  [[nodiscard]] Slot slot_in(std::uint32_t word) const noexcept {
    return (word & ((std::uint32_t{1} << slot_bits_) - 1)) - 1;
  }
  [[nodiscard]] std::uint32_t word_for(Slot slot, std::uint32_t hash) const noexcept {
    return (hash >> slot_bits_ << slot_bits_) | (slot + 1);
  }

  [[nodiscard]] Entry& at(Slot slot) noexcept { return chunks_[slot / kChunk]->entries[slot % kChunk]; }
  [[nodiscard]] const Entry& at(Slot slot) const noexcept { return chunks_[slot / kChunk]->entries[slot % kChunk]; }
  [[nodiscard]] Name& name(Slot slot) noexcept { return chunks_[slot / kChunk]->names[slot % kChunk]; }
  [[nodiscard]] const Name& name(Slot slot) const noexcept { return chunks_[slot / kChunk]->names[slot % kChunk]; }
  [[nodiscard]] Link& link(Slot slot) noexcept { return chunks_[slot / kChunk]->links[slot % kChunk]; }

  [[nodiscard]] bool holds(Slot slot, const KeyView& key, std::uint32_t hash) const noexcept {
    const Name& known = name(slot);
    return known.hash == hash && texts_.holds(known.text, key.text, key.tag);
  }

  void reserve_slot() {
    if (free_slot_ == kNone && slot_end_ == chunks_.size() * kChunk) {
      chunks_.push_back(std::make_unique<Chunk>());
    }
  }

  Slot take_slot() noexcept {
    return free_slot_ != kNone ? std::exchange(free_slot_, link(free_slot_).next) : slot_end_++;
  }

  // 2^32 insertions exhaust the sequence; the living entries are then renumbered from 0.
  Sequence next_sequence() {
    if (next_sequence_ == std::numeric_limits<Sequence>::max()) {
      next_sequence_ = 0;
      for (const Slot slot : by_insertion()) {
        at(slot).sequence = next_sequence_++;
      }
    }
    return next_sequence_++;
  }

  void grow_index() {
    index_.assign(index_.size() * 2, 0);
    slot_bits_ = static_cast<unsigned>(std::countr_zero(index_.size()));
    for (Slot slot = 0; slot < slot_end_; ++slot) {
      if (occupied(slot)) {
        index_slot(slot, name(slot).hash);
      }
    }
  }

  void index_slot(Slot slot, std::uint32_t hash) noexcept {
    std::size_t position = hash & mask();
    while (index_[position] != 0) {
      position = (position + 1) & mask();
    }
    index_[position] = word_for(slot, hash);
  }

  // Closes the gap by moving later entries of the same run back, so that no tombstones collect.
  void remove_from_index(Slot slot) noexcept {
    std::size_t gap = name(slot).hash & mask();
    while (slot_in(index_[gap]) != slot) {
      gap = (gap + 1) & mask();
    }
    for (std::size_t next = (gap + 1) & mask(); index_[next] != 0; next = (next + 1) & mask()) {
      const std::size_t home = name(slot_in(index_[next])).hash & mask();
      if (((next - home) & mask()) >= ((next - gap) & mask())) {
        index_[gap] = index_[next];
        gap = next;
      }
    }
    index_[gap] = 0;
  }

  void link_front(Slot slot) noexcept {
    link(slot) = {kNone, most_recent_};
    if (most_recent_ != kNone) {
      link(most_recent_).previous = slot;
    } else {
      least_recent_ = slot;
    }
    most_recent_ = slot;
  }

  void unlink(Slot slot) noexcept {
    const Link around = link(slot);
    (around.previous != kNone ? link(around.previous).next : most_recent_) = around.next;
    (around.next != kNone ? link(around.next).previous : least_recent_) = around.previous;
  }

  TextPool texts_;
  std::vector<std::unique_ptr<Chunk>> chunks_;
  std::vector<std::uint32_t> index_;
  unsigned slot_bits_ = static_cast<unsigned>(std::countr_zero(kFirstIndexSize));
  std::size_t size_ = 0;
  Slot slot_end_ = 0;
  Slot free_slot_ = kNone;
  Slot most_recent_ = kNone;
  Slot least_recent_ = kNone;
  Sequence next_sequence_ = 0;
};

}  // namespace peercore

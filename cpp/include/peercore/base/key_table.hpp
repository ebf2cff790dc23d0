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
/// copies no value. The index is open addressing over 64-bit words: where the text is, the slot and, in the bits the
/// slot does not need, more of the hash. A probe reads a text only when those bits agree, and one read of the index
/// tells where text, value and links are, so that all three can be loaded at once. Beside the key's text an entry costs
/// sizeof(Value) + 16 bytes, 10 to 20 bytes of index and the text's 4 bytes and rounding. Not thread-safe. Recency is
/// moved only by `touch`; lookups do not count as use. `Sequence` counts insertions and is renumbered when it is used
/// up, so it only has to name the living entries.
template <class Value, class Sequence = std::uint32_t>
class KeyTable {
 public:
  using Slot = std::uint32_t;
  static constexpr Slot kNone = std::numeric_limits<Slot>::max();
  /// Entries a table can name.
  static constexpr std::size_t kMaxSize = (std::size_t{1} << 31U) - 1;

  KeyTable() : index_(kFirstIndexSize) {}

  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  /// True when slots or handles for texts are used up; `insert` must not be called then.
  [[nodiscard]] bool full() const noexcept { return size_ >= kMaxSize || texts_.full(); }
  [[nodiscard]] std::size_t text_bytes() const noexcept { return texts_.text_bytes(); }
  [[nodiscard]] std::size_t text_page_bytes() const noexcept { return texts_.page_bytes(); }
  [[nodiscard]] std::size_t memory_bytes() const noexcept {
    return texts_.memory_bytes() + chunks_.size() * sizeof(Chunk) + chunks_.capacity() * sizeof(void*) +
           index_.capacity() * sizeof(Word);
  }

  [[nodiscard]] Slot find(const KeyView& key) const noexcept {
    const std::uint32_t hash = fold(key.hash);
    for (std::size_t at = hash & mask();; at = (at + 1) & mask()) {
      const Word word = index_[at];
      if (word.mark == 0) {
        return kNone;
      }
      if (agrees(word, hash) && texts_.holds(word.text, key.text, key.tag)) {
        return slot_in(word);
      }
    }
  }

  /// Starts loading what `find` and the caller will read for a key of this hash. Waits for nothing but the index.
  void prefetch(std::uint64_t key_hash) const noexcept {
    const std::uint32_t hash = fold(key_hash);
    for (std::size_t at = hash & mask(); index_[at].mark != 0; at = (at + 1) & mask()) {
      if (agrees(index_[at], hash)) {
        const Chunk& chunk = *chunks_[slot_in(index_[at]) / kChunk];
        const std::size_t place = slot_in(index_[at]) % kChunk;
        texts_.prefetch(index_[at].text);
        __builtin_prefetch(&chunk.entries[place], 1);
        __builtin_prefetch(&chunk.links[place], 1);
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
    hash_of(slot) = fold(key.hash);
    static_cast<Value&>(at(slot)) = Value(std::forward<Args>(args)...);
    at(slot).sequence = next_sequence();
    index_slot(slot, text);
    link_front(slot);
    ++size_;
    return slot;
  }

  void erase(Slot slot) noexcept {
    texts_.release(text_of(slot));
    remove_from_index(slot);
    unlink(slot);
    link(slot) = {slot, free_slot_};
    free_slot_ = slot;
    --size_;
  }

  /// Drops everything and gives the memory back.
  void clear() { *this = KeyTable(); }

  [[nodiscard]] Value& value(Slot slot) noexcept { return at(slot); }
  [[nodiscard]] const Value& value(Slot slot) const noexcept { return at(slot); }
  [[nodiscard]] KeyView key(Slot slot) const noexcept {
    const TextPool::Handle text = text_of(slot);
    return {texts_.text(text), hash_of(slot), texts_.tag(text)};
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
  [[nodiscard]] bool occupied(Slot slot) const noexcept { return link(slot).previous != slot; }

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
  // Apart from the entries, eight to a cache line: moving an entry to the front writes to its two neighbours. In a free
  // slot `previous` is the slot itself, which no living entry's is, and `next` is the next free slot.
  struct Link {
    Slot previous = kNone;
    Slot next = kNone;
  };
  struct Chunk {
    std::array<Entry, kChunk> entries;
    std::array<Link, kChunk> links;
    std::array<std::uint32_t, kChunk> hashes;
  };
  // `mark` is never 0 where a key is: it stores slot + 1 in its low bits, and the index always has more positions than
  // there are slots.
  struct Word {
    std::uint32_t mark = 0;
    TextPool::Handle text = 0;
  };

  [[nodiscard]] static std::uint32_t fold(std::uint64_t hash) noexcept {
    return static_cast<std::uint32_t>(hash ^ (hash >> 32U));
  }
  [[nodiscard]] std::size_t mask() const noexcept { return index_.size() - 1; }
  [[nodiscard]] Slot slot_in(Word word) const noexcept {
    return (word.mark & ((std::uint32_t{1} << slot_bits_) - 1)) - 1;
  }
  [[nodiscard]] bool agrees(Word word, std::uint32_t hash) const noexcept {
    return (word.mark ^ hash) >> slot_bits_ == 0;
  }

  [[nodiscard]] Entry& at(Slot slot) noexcept { return chunks_[slot / kChunk]->entries[slot % kChunk]; }
  [[nodiscard]] const Entry& at(Slot slot) const noexcept { return chunks_[slot / kChunk]->entries[slot % kChunk]; }
  [[nodiscard]] std::uint32_t& hash_of(Slot slot) noexcept { return chunks_[slot / kChunk]->hashes[slot % kChunk]; }
  [[nodiscard]] std::uint32_t hash_of(Slot slot) const noexcept {
    return chunks_[slot / kChunk]->hashes[slot % kChunk];
  }
  [[nodiscard]] Link& link(Slot slot) noexcept { return chunks_[slot / kChunk]->links[slot % kChunk]; }
  [[nodiscard]] const Link& link(Slot slot) const noexcept { return chunks_[slot / kChunk]->links[slot % kChunk]; }
  [[nodiscard]] TextPool::Handle text_of(Slot slot) const noexcept { return index_[position_of(slot)].text; }

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
    const unsigned old_bits = slot_bits_;
    std::vector<Word> old(index_.size() * 2);
    old.swap(index_);
    slot_bits_ = static_cast<unsigned>(std::countr_zero(index_.size()));
    for (const Word word : old) {
      if (word.mark != 0) {
        index_slot((word.mark & ((std::uint32_t{1} << old_bits) - 1)) - 1, word.text);
      }
    }
  }

  void index_slot(Slot slot, TextPool::Handle text) noexcept {
    const std::uint32_t hash = hash_of(slot);
    std::size_t position = hash & mask();
    while (index_[position].mark != 0) {
      position = (position + 1) & mask();
    }
    index_[position] = {(hash >> slot_bits_ << slot_bits_) | (slot + 1), text};
  }

  [[nodiscard]] std::size_t position_of(Slot slot) const noexcept {
    std::size_t position = hash_of(slot) & mask();
    while (slot_in(index_[position]) != slot) {
      position = (position + 1) & mask();
    }
    return position;
  }

  // Closes the gap by moving later entries of the same run back, so that no tombstones collect.
  void remove_from_index(Slot slot) noexcept {
    std::size_t gap = position_of(slot);
    for (std::size_t next = (gap + 1) & mask(); index_[next].mark != 0; next = (next + 1) & mask()) {
      const std::size_t home = hash_of(slot_in(index_[next])) & mask();
      if (((next - home) & mask()) >= ((next - gap) & mask())) {
        index_[gap] = index_[next];
        gap = next;
      }
    }
    index_[gap] = {};
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
  std::vector<Word> index_;
  unsigned slot_bits_ = static_cast<unsigned>(std::countr_zero(kFirstIndexSize));
  std::size_t size_ = 0;
  Slot slot_end_ = 0;
  Slot free_slot_ = kNone;
  Slot most_recent_ = kNone;
  Slot least_recent_ = kNone;
  Sequence next_sequence_ = 0;
};

}  // namespace peercore

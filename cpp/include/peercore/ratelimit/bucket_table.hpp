#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "peercore/base/key_table.hpp"
#include "peercore/base/limits.hpp"
#include "peercore/ratelimit/token_bucket.hpp"

namespace peercore::ratelimit {

/// What became of one request, with what its caller is told. `bucket` is a copy: it stays true whatever happens next.
struct Decision {
  bool admitted = false;
  Bucket bucket;
};

struct Counters {
  std::uint64_t allowed = 0;
  std::uint64_t denied = 0;
  /// Idle buckets removed by `sweep`.
  std::uint64_t cleaned = 0;
  /// Buckets removed because the table was at its bound.
  std::uint64_t evicted = 0;
};

/// Token buckets by key, bounded. A decider: time comes in as an argument, nothing else happens.
///
/// Not thread-safe; the binding calls it under the GIL and never gives the GIL up while inside.
/// Differences from v1.2: the table is bounded (F10), needs no task to stay so (F11), counts time on the caller's
/// monotonic clock (F12, F13) and forgets a bucket only when it is full again (F18) or the bound leaves no choice.
///
/// Eviction is O(1): a bucket that is full again goes first, looked for at the least recently used end and among
/// `kEvictionProbe` entries under a hand that circles the table (so exactly in tables up to that size); when none of
/// them is full, the least recently used one goes.
class BucketTable {
 public:
  using Slot = KeyTable<Bucket>::Slot;

  static constexpr std::uint32_t kEvictionProbe = 64;

  BucketTable(const Limits& limits, const Rules& rules) : limits_(limits), rules_(rules) {}

  /// Judges one request of `cost` tokens. Fails with `key_too_long` or `table_full`, and then nothing has changed.
  /// Precondition: cost >= 1.
  [[nodiscard]] Result<Decision> check(const KeyView& key, const BucketConfig& config, Seconds now, double cost);

  /// `check` for callers that need only the answer.
  [[nodiscard]] Result<bool> admit(const KeyView& key, const BucketConfig& config, Seconds now, double cost);

  /// Tries to judge by a clock that may lag. `now` must not be later than the true time; it may be earlier, usually by
  /// less than `lag`. Answers only for a known key and only what it would answer at every time from `now` to `now +
  /// lag`: admitted with the same whole number of tokens left, or refused with the same wait in tenths and in seconds,
  /// in the same window. Otherwise it does nothing, and the caller comes back with an exact time.
  [[nodiscard]] std::optional<Decision> check_early(const KeyView& key, const BucketConfig& config, Seconds now,
                                                    Seconds lag, double cost) noexcept;
  /// The same for callers that need only the answer: true, or not known yet.
  [[nodiscard]] bool admit_early(const KeyView& key, const BucketConfig& config, Seconds now, double cost) noexcept;

  /// Starts loading what a check of this hash will read first.
  void prefetch(std::uint64_t hash) const noexcept { table_.prefetch(hash); }

  /// For callers that wait: takes `cost` tokens and returns 0, or takes nothing and returns how long until they are
  /// there. Having to wait counts neither as allowed nor as denied.
  [[nodiscard]] Result<Seconds> take(const KeyView& key, const BucketConfig& config, Seconds now, double cost);

  /// Undoes a `take` whose caller no longer wants it: the tokens return, as far as the bucket holds them.
  void give_back(const KeyView& key, const BucketConfig& config, double cost) noexcept;

  /// The bucket's state as last written (not refilled), if the key is known.
  [[nodiscard]] std::optional<Bucket> peek(const KeyView& key) const noexcept;
  /// Writes a bucket, creating it if needed; `full_at` is computed here.
  [[nodiscard]] Result<bool> put(const KeyView& key, Bucket bucket, const BucketConfig& config, Seconds now);
  bool erase(const KeyView& key);
  void clear();

  /// Removes buckets idle for more than `idle` that are full again, looking at no more than `most` slots from `from`
  /// on. Returns the slot to go on from, or nothing when the end was reached.
  std::optional<Slot> sweep(Slot from, std::uint32_t most, Seconds now, Seconds idle);

  [[nodiscard]] std::vector<KeyView> keys() const;
  [[nodiscard]] std::size_t size() const noexcept { return table_.size(); }
  [[nodiscard]] std::size_t text_page_bytes() const noexcept { return table_.text_page_bytes(); }
  [[nodiscard]] std::size_t memory_bytes() const noexcept { return table_.memory_bytes(); }
  [[nodiscard]] const Counters& counters() const noexcept { return counters_; }
  [[nodiscard]] Counters& counters() noexcept { return counters_; }
  [[nodiscard]] const Rules& rules() const noexcept { return rules_; }
  [[nodiscard]] const Limits& limits() const noexcept { return limits_; }

  /// Called with every key that leaves the table, while its view is still valid. For callers that hold something per
  /// key.
  using OnErase = void (*)(void* context, const KeyView& key);
  void on_erase(OnErase callback, void* context) noexcept {
    on_erase_ = callback;
    on_erase_context_ = context;
  }

 private:
  [[nodiscard]] Result<Slot> slot_for(const KeyView& key, const BucketConfig& config, Seconds now);
  [[nodiscard]] Result<Slot> add(const KeyView& key, const BucketConfig& config, Seconds now);
  [[nodiscard]] bool acquire(Slot slot, const BucketConfig& config, Seconds now, double cost) noexcept;
  [[nodiscard]] Slot victim(Seconds now) noexcept;
  void erase_slot(Slot slot);

  KeyTable<Bucket> table_;
  Limits limits_;
  Rules rules_;
  Counters counters_;
  Slot hand_ = 0;
  OnErase on_erase_ = nullptr;
  void* on_erase_context_ = nullptr;
};

}  // namespace peercore::ratelimit

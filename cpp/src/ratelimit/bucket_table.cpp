#include "peercore/ratelimit/bucket_table.hpp"

#include <algorithm>
#include <cmath>
#include <string>

namespace peercore::ratelimit {
namespace {

double tokens_at(const Bucket& bucket, const BucketConfig& config, Seconds time) noexcept {
  const double earned = std::max((time - bucket.last_update).count(), 0.0) * config.refill_rate;
  return std::min(bucket.tokens + earned, config.burst);
}

// Whether a request is refused with the same retry_after, in either form, at two levels of the bucket.
bool same_refusal(const BucketConfig& config, const Rules& rules, double tokens, double tokens_later,
                  double cost) noexcept {
  const auto wait = [&](double level) { return Seconds{(cost - level) / config.refill_rate}; };
  const auto tenths = [&](double level) { return round_up_to_tenth(wait(level)); };
  const auto seconds = [&](double level) { return std::floor(wait(level).count()); };
  return std::isfinite(cost) && tokens_later + rules.slack.count() * config.refill_rate < cost &&
         tenths(tokens) == tenths(tokens_later) && seconds(tokens) == seconds(tokens_later);
}

}  // namespace

Result<Decision> BucketTable::check(const KeyView& key, const BucketConfig& config, Seconds now, double cost) {
  const Result<Slot> slot = slot_for(key, config, now);
  if (!slot) {
    return slot.error();
  }
  const bool admitted = acquire(slot.value(), config, now, cost);
  counters_.denied += admitted ? 0U : 1U;
  return Decision{admitted, table_.value(slot.value())};
}

Result<bool> BucketTable::admit(const KeyView& key, const BucketConfig& config, Seconds now, double cost) {
  const Result<Slot> slot = slot_for(key, config, now);
  if (!slot) {
    return slot.error();
  }
  const bool admitted = acquire(slot.value(), config, now, cost);
  counters_.denied += admitted ? 0U : 1U;
  return admitted;
}

std::optional<Decision> BucketTable::check_early(const KeyView& key, const BucketConfig& config, Seconds now,
                                                 Seconds lag, double cost) noexcept {
  const Slot slot = table_.find(key);
  if (slot == KeyTable<Bucket>::kNone) {
    return std::nullopt;
  }
  const Bucket& bucket = table_.value(slot);
  const double tokens = tokens_at(bucket, config, now);
  const double tokens_later = tokens_at(bucket, config, now + lag);
  const bool same_window = now + lag - bucket.window_start <= config.window;
  const bool window_decides =
      rules_.enforce_window && (tokens < cost || bucket.request_count + cost > config.window_limit);
  const bool same_answer = tokens >= cost ? std::floor(tokens - cost) == std::floor(tokens_later - cost)
                                          : same_refusal(config, rules_, tokens, tokens_later, cost);
  if (!same_window || window_decides || !same_answer) {
    return std::nullopt;
  }
  const bool admitted = acquire(slot, config, now, cost);
  counters_.denied += admitted ? 0U : 1U;
  return Decision{admitted, bucket};
}

bool BucketTable::admit_early(const KeyView& key, const BucketConfig& config, Seconds now, double cost) noexcept {
  const Slot slot = table_.find(key);
  return slot != KeyTable<Bucket>::kNone && acquire(slot, config, now, cost);
}

Result<Seconds> BucketTable::take(const KeyView& key, const BucketConfig& config, Seconds now, double cost) {
  const double most = rules_.enforce_window ? std::min(config.burst, config.window_limit) : config.burst;
  if (cost > most) {
    return Error{Errc::invalid_argument, "cost " + std::to_string(static_cast<long>(cost)) +
                                             " is more than a full bucket holds or a window admits (" +
                                             std::to_string(static_cast<long>(most)) + ")"};
  }
  const Result<Slot> slot = slot_for(key, config, now);
  if (!slot) {
    return slot.error();
  }
  if (acquire(slot.value(), config, now, cost)) {
    return Seconds{0.0};
  }
  // A refusal must not look like an admission: without slack, a window that ends at this instant leaves a wait of 0.
  constexpr Seconds kLeast{1e-6};
  return std::max(wait_for(table_.value(slot.value()), config, rules_, cost), kLeast);
}

void BucketTable::give_back(const KeyView& key, const BucketConfig& config, double cost) noexcept {
  const Slot slot = table_.find(key);
  if (slot == KeyTable<Bucket>::kNone) {
    return;  // evicted meanwhile: the next request finds a full bucket anyway
  }
  Bucket& bucket = table_.value(slot);
  bucket.tokens = std::min(bucket.tokens + cost, config.burst);
  bucket.request_count -= std::min(bucket.request_count, static_cast<std::uint32_t>(cost));
  update_full_at(bucket, config);
  counters_.allowed -= std::min<std::uint64_t>(counters_.allowed, 1);
}

std::optional<Bucket> BucketTable::peek(const KeyView& key) const noexcept {
  const Slot slot = table_.find(key);
  return slot == KeyTable<Bucket>::kNone ? std::nullopt : std::optional(table_.value(slot));
}

Result<bool> BucketTable::put(const KeyView& key, Bucket bucket, const BucketConfig& config, Seconds now) {
  const Result<Slot> slot = slot_for(key, config, now);
  if (!slot) {
    return slot.error();
  }
  update_full_at(bucket, config);
  table_.value(slot.value()) = bucket;
  return true;
}

bool BucketTable::erase(const KeyView& key) {
  const Slot slot = table_.find(key);
  if (slot == KeyTable<Bucket>::kNone) {
    return false;
  }
  erase_slot(slot);
  return true;
}

void BucketTable::clear() {
  if (on_erase_ != nullptr) {
    for (Slot slot = 0; slot < table_.slot_end(); ++slot) {
      if (table_.occupied(slot)) {
        on_erase_(on_erase_context_, table_.key(slot));
      }
    }
  }
  table_.clear();
}

std::optional<BucketTable::Slot> BucketTable::sweep(Slot from, std::uint32_t most, Seconds now, Seconds idle) {
  const Slot end = table_.slot_end();
  const Slot stop = end - std::min(from, end) > most ? from + most : end;
  for (Slot slot = from; slot < stop; ++slot) {
    if (table_.occupied(slot)) {
      const Bucket& bucket = table_.value(slot);
      if (now - bucket.last_update > idle && now >= bucket.full_at) {
        erase_slot(slot);
        ++counters_.cleaned;
      }
    }
  }
  return stop < end ? std::optional(stop) : std::nullopt;
}

std::vector<KeyView> BucketTable::keys() const {
  std::vector<KeyView> keys;
  keys.reserve(table_.size());
  for (const Slot slot : table_.by_insertion()) {
    keys.push_back(table_.key(slot));
  }
  return keys;
}

Result<BucketTable::Slot> BucketTable::slot_for(const KeyView& key, const BucketConfig& config, Seconds now) {
  const Slot known = table_.find(key);
  if (known != KeyTable<Bucket>::kNone) [[likely]] {
    return known;
  }
  return add(key, config, now);
}

Result<BucketTable::Slot> BucketTable::add(const KeyView& key, const BucketConfig& config, Seconds now) {
  if (key.text.size() > std::min(limits_.max_key_bytes, TextPool::kMaxText)) {
    return Error{Errc::key_too_long, "key of " + std::to_string(key.text.size()) + " bytes: at most " +
                                         std::to_string(std::min(limits_.max_key_bytes, TextPool::kMaxText)) +
                                         " are kept"};
  }
  if (table_.full()) {
    return Errc::table_full;
  }
  const auto full = [&] {
    return table_.size() >= limits_.max_buckets || table_.text_bytes() + key.text.size() > limits_.max_key_bytes ||
           table_.text_page_bytes() > limits_.max_key_page_bytes();
  };
  while (table_.size() > 0 && full()) {
    erase_slot(victim(now));
    ++counters_.evicted;
  }
  return table_.insert(key, config.burst, now);
}

bool BucketTable::acquire(Slot slot, const BucketConfig& config, Seconds now, double cost) noexcept {
  table_.touch(slot);
  const bool admitted = try_acquire(table_.value(slot), config, rules_, now, cost);
  counters_.allowed += admitted ? 1U : 0U;
  return admitted;
}

BucketTable::Slot BucketTable::victim(Seconds now) noexcept {
  const Slot oldest = table_.least_recent();
  if (now >= table_.value(oldest).full_at) {
    return oldest;
  }
  const Slot end = table_.slot_end();
  for (std::uint32_t probed = 0; probed < std::min<Slot>(kEvictionProbe, end); ++probed) {
    hand_ = hand_ + 1 < end ? hand_ + 1 : 0;
    if (table_.occupied(hand_) && now >= table_.value(hand_).full_at) {
      return hand_;
    }
  }
  return oldest;
}

void BucketTable::erase_slot(Slot slot) {
  if (on_erase_ != nullptr) {
    on_erase_(on_erase_context_, table_.key(slot));
  }
  table_.erase(slot);
}

}  // namespace peercore::ratelimit

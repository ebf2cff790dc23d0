// BucketTable under random use: whatever is asked, at whatever time, the promises of its header hold.
//
// A model keeps, per key, the time and tokens its account began with and what it was granted since; order of use; and
// the counters. It knows nothing of how buckets are refilled.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "byte_reader.hpp"
#include "peercore/ratelimit/bucket_table.hpp"

namespace peercore::fuzz {
namespace {

using ratelimit::Bucket;
using ratelimit::BucketConfig;
using ratelimit::BucketTable;
using ratelimit::Counters;
using ratelimit::Decision;
using ratelimit::Rules;

constexpr std::array<double, 8> kRates{60, 1, 6000, 0, 1e-3, 6e7, 1e300, 97};
constexpr std::array<double, 8> kBursts{10, 1, 2.5, 0, 1000, 1e9, 1e300, 7};
constexpr std::array<double, 4> kWindows{60, 1, 1e-3, 1e300};
constexpr std::array<double, 8> kCosts{1, 1, 1, 2, 3, 10, 1000, 2147483647};
constexpr std::array<double, 8> kSteps{0.0, 1e-7, 1e-3, 0.1, 1.0, 12.0, 700.0, -0.5};
constexpr std::array<double, 8> kInstants{0.0, 1000.0, 1.7e9, -1.7e9, 1e15, -1e300, 1e300, 1.7e308};
constexpr std::array<std::size_t, 8> kLengths{1, 2, 4, 5, 12, 60, 509, 700};
constexpr Seconds kLag{0.010};

struct Account {
  double tokens = 0.0;  ///< what it began with
  Seconds since{0.0};
  Seconds until{0.0};
  double granted = 0.0;
  double best_rate = 0.0;  ///< the highest it was judged by since

  // Rounding of sums and differences is relative to what is summed.
  [[nodiscard]] double most(const Rules& rules) const {
    const double earned = (until - since).count() * best_rate;
    return (tokens + earned) * (1 + 1e-9) + rules.slack.count() * best_rate + 1e-9;
  }
};

class Run {
 public:
  Run(const std::uint8_t* data, std::size_t size)
      : input_(data, size),
        limits_{.max_buckets = 1U + input_.byte() % 100U, .max_key_bytes = 100U + input_.byte() * 16U},
        rules_{.slack = Seconds{input_.below(2) == 0 ? 1e-6 : 0.0}, .enforce_window = input_.below(3) == 0},
        table_(limits_, rules_) {
    table_.on_erase(&Run::left, this);
  }

  void go() {
    while (!input_.done()) {
      pass_time();
      step();
      check_totals();
    }
    check_keys();
  }

 private:
  void pass_time() {
    const std::uint8_t what = input_.byte();
    if (what == 255) {
      now_ = Seconds{kInstants[input_.below(8)]};
    } else {
      now_ += Seconds{kSteps[what % 8]};
    }
  }

  void step() {
    const std::uint8_t what = input_.below(32);
    const std::uint8_t which = input_.byte();
    const std::uint8_t numbers = input_.byte();
    text_.assign(kLengths[which % 8], static_cast<char>('a' + which / 8));
    key_ = {text_, which % 3 == 0 ? 7U : std::hash<std::string>{}(text_), static_cast<std::uint8_t>(numbers / 128)};
    config_ = configs_[which % 4];
    cost_ = kCosts[numbers % 8];
    known_ = table_.peek(key_);
    require(known_.has_value() == accounts_.contains(name(key_)), "the table knows exactly what did not leave");
    prepare_for_eviction();
    run(what, numbers);
  }

  void run(std::uint8_t what, std::uint8_t numbers) {
    switch (what) {
      case 0:
        return change_config(numbers);
      case 1:
        return put(numbers);
      case 2:
        return sweep(numbers);
      case 3:
        return require(table_.erase(key_) == known_.has_value(), "erase says whether there was something");
      case 4:
        return numbers < 8 ? clear() : give_back();
      case 5:
      case 6:
      case 7:
        return give_back();
      default:
        break;
    }
    if (what < 14) {
      return check_early();
    }
    if (what < 18) {
      return admit_early();
    }
    if (what < 22) {
      return take();
    }
    return what < 26 ? admit() : check();
  }

  // ---- operations

  void change_config(std::uint8_t numbers) {
    configs_[numbers % 4] =
        BucketConfig::make_unchecked(kRates[input_.below(8)], kBursts[input_.below(8)], kWindows[input_.below(4)]);
  }

  void put(std::uint8_t numbers) {
    Bucket bucket(kBursts[numbers % 8], now_);
    bucket.request_count = numbers;
    const auto written = table_.put(key_, bucket, config_, now_);
    if (entered(written.ok())) {
      accounts_[name(key_)] = {bucket.tokens, now_, now_, 0.0, config_.refill_rate};
    }
  }

  void check() {
    const Result<Decision> decision = table_.check(key_, config_, now_, cost_);
    if (entered(decision.ok())) {
      require(same(decision.value().bucket, table_.peek(key_).value()), "a decision shows the bucket");
      judged(decision.value().admitted, now_);
      used();
      expected_.denied += decision.value().admitted ? 0U : 1U;
    }
  }

  void admit() {
    const Result<bool> admitted = table_.admit(key_, config_, now_, cost_);
    if (entered(admitted.ok())) {
      judged(admitted.value(), now_);
      used();
      expected_.denied += admitted.value() ? 0U : 1U;
    }
  }

  void take() {
    const Result<Seconds> wait = table_.take(key_, config_, now_, cost_);
    const double most = rules_.enforce_window ? std::min(config_.burst, config_.window_limit) : config_.burst;
    require(cost_ <= most || (!wait && wait.error().code == Errc::invalid_argument), "what no wait brings is an error");
    if (cost_ > most) {
      evicting_ = false;
    } else if (entered(wait.ok())) {
      require(wait.value() >= Seconds{0} && wait.value() <= ratelimit::kMaxRetryAfter, "a wait is within its bounds");
      judged(wait.value() == Seconds{0}, now_);
      used();
    }
  }

  void check_early() {
    const std::optional<Decision> early = table_.check_early(key_, config_, now_, kLag, cost_);
    if (!early) {
      const std::optional<Bucket> after = table_.peek(key_);
      require(after.has_value() == known_.has_value() && (!after || same(*after, *known_)), "no answer, no change");
      return;
    }
    require(known_.has_value(), "an early answer is about a known key");
    for (const double part : {0.0, 0.3, 1.0}) {
      Bucket late = *known_;
      const bool admitted = ratelimit::try_acquire(late, config_, rules_, now_ + part * kLag, cost_);
      require(admitted == early->admitted, "an early answer holds later");
      require(told({admitted, late}) == told(*early), "with the same tokens or the same wait");
      require(late.window_start == early->bucket.window_start, "in the same window");
    }
    judged(early->admitted, now_);
    used();
    expected_.denied += early->admitted ? 0U : 1U;
  }

  // What the caller is told beside yes or no: tokens left when admitted, retry_after in both forms when refused.
  [[nodiscard]] std::array<double, 2> told(const Decision& decision) const {
    if (decision.admitted) {
      return {std::floor(decision.bucket.tokens), 0.0};
    }
    const Seconds wait = ratelimit::wait_for(decision.bucket, config_, rules_, cost_);
    return {ratelimit::round_up_to_tenth(wait),
            static_cast<double>(ratelimit::integer_retry_after(decision.bucket, config_, rules_, cost_))};
  }

  void admit_early() {
    const bool admitted = table_.admit_early(key_, config_, now_, cost_);
    require(!admitted || known_.has_value(), "an early answer admits a known key");
    if (known_) {
      judged(admitted, now_);
      used();
    }
  }

  void give_back() {
    table_.give_back(key_, config_, cost_);
    if (!known_) {
      return;
    }
    const double tokens = table_.peek(key_)->tokens;
    accounts_[name(key_)].granted -= std::max(tokens - known_->tokens, 0.0);
    expected_.allowed -= std::min<std::uint64_t>(expected_.allowed, 1);
    require(tokens <= config_.burst, "giving back does not overfill");
  }

  void clear() {
    evicting_ = false;
    table_.clear();
  }

  void sweep(std::uint8_t numbers) {
    const Seconds idle{kSteps[numbers % 7]};
    sweeping_ = idle;
    BucketTable::Slot from = numbers;
    while (const auto next = table_.sweep(from, 1U + numbers % 5U, now_, idle)) {
      require(*next > from, "a sweep gets on");
      from = *next;
    }
    sweeping_.reset();
  }

  // ---- the model

  static std::string name(const KeyView& key) { return static_cast<char>('0' + key.tag) + std::string(key.text); }

  static bool same(const Bucket& a, const Bucket& b) {
    return a.tokens == b.tokens && a.last_update == b.last_update && a.window_start == b.window_start &&
           a.full_at == b.full_at && a.request_count == b.request_count;
  }

  // After an operation that may have created the key. False when it was refused.
  bool entered(bool ok) {
    require(ok == (text_.size() <= limits_.max_key_bytes), "only a key that never fits is refused");
    evicting_ = false;
    if (ok && !known_) {
      accounts_[name(key_)] = {config_.burst, now_, now_, 0.0, config_.refill_rate};
      recency_.push_back(name(key_));
    }
    return ok;
  }

  void used() {
    const auto place = std::find(recency_.begin(), recency_.end(), name(key_));
    recency_.splice(recency_.end(), recency_, place);
  }

  void judged(bool admitted, Seconds now) {
    Account& account = accounts_[name(key_)];
    account.until = std::max(account.until, now);
    account.best_rate = std::max(account.best_rate, config_.refill_rate);
    account.granted += admitted ? cost_ : 0.0;
    expected_.allowed += admitted ? 1U : 0U;
    const Bucket bucket = table_.peek(key_).value();
    require(account.granted <= account.most(rules_), "never more than the burst and what was earned");
    require(bucket.tokens <= config_.burst, "no more tokens than the burst");
    require(bucket.tokens >= -rules_.slack.count() * config_.refill_rate * (1 + 1e-9) - 1e-9 || known_in_debt(),
            "no more debt than the slack");
    require(bucket.full_at >= bucket.last_update, "full_at is not in the past of the bucket");
    require(!admitted || !rules_.enforce_window || bucket.request_count <= config_.window_limit, "the window holds");
    if (!admitted) {
      check_wait(bucket);
    }
  }

  // A debt made under a faster rate may outlive a change of config.
  [[nodiscard]] bool known_in_debt() const { return known_ && known_->tokens < 0.0; }

  // Who waits as long as told is admitted, where the clock and the tokens are fine enough for the slack to show.
  void check_wait(const Bucket& bucket) const {
    const Seconds wait = ratelimit::wait_for(bucket, config_, rules_, cost_);
    require(wait >= Seconds{0} && wait <= ratelimit::kMaxRetryAfter, "a wait is within its bounds");
    require(ratelimit::integer_retry_after(bucket, config_, rules_, cost_) >= 1, "whole seconds are at least 1");
    const double latest =
        std::max(std::abs(bucket.last_update.count()), std::abs(bucket.window_start.count())) + wait.count();
    const double step = std::nextafter(latest, HUGE_VAL) - latest;
    const double slack = rules_.slack.count();
    if (wait < ratelimit::kMaxRetryAfter && 2 * step < slack && cost_ * 1e-15 < slack * config_.refill_rate / 4) {
      for (const Seconds time : {wait, Seconds{ratelimit::round_up_to_tenth(wait)}}) {
        Bucket later = bucket;
        require(ratelimit::try_acquire(later, config_, rules_, bucket.last_update + time, cost_), "waiting is enough");
      }
    }
  }

  // ---- who leaves

  void prepare_for_eviction() {
    evicting_ = !known_.has_value();
    some_full_ = false;
    for (const KeyView& key : table_.keys()) {
      some_full_ = some_full_ || now_ >= table_.peek(key)->full_at;
    }
    evicted_before_ = table_.counters().evicted;
  }

  static void left(void* context, const KeyView& key) { static_cast<Run*>(context)->on_left(key); }

  void on_left(const KeyView& key) {
    const std::string gone = name(key);
    const Bucket bucket = table_.peek(key).value();
    if (sweeping_) {
      require(now_ >= bucket.full_at && now_ - bucket.last_update > *sweeping_, "a sweep takes what is idle and full");
      ++expected_.cleaned;
    } else if (evicting_) {
      check_victim(gone, bucket);
    }
    require(accounts_.erase(gone) == 1, "nobody leaves twice");
    recency_.remove(gone);
  }

  void check_victim(const std::string& gone, const Bucket& bucket) {
    const bool full = now_ >= bucket.full_at;
    require(full || gone == recency_.front(), "a victim is full, or the least recently used");
    const bool first = table_.counters().evicted == evicted_before_;
    require(full || !first || !some_full_ || limits_.max_buckets > BucketTable::kEvictionProbe,
            "in a small table a full one goes first");
  }

  void check_totals() const {
    require(table_.size() == accounts_.size() && table_.size() <= limits_.max_buckets, "max_buckets");
    std::size_t bytes = 0;
    for (const std::string& known : recency_) {
      bytes += known.size() - 1;
    }
    require(bytes <= limits_.max_key_bytes, "max_key_bytes");
    const Counters& counters = table_.counters();
    require(counters.allowed == expected_.allowed && counters.denied == expected_.denied, "allowed and denied");
    require(counters.cleaned == expected_.cleaned, "cleaned");
  }

  void check_keys() const {
    for (const KeyView& key : table_.keys()) {
      require(accounts_.contains(name(key)), "keys() shows what is there");
    }
    require(table_.keys().size() == accounts_.size(), "all of it");
  }

  ByteReader input_;
  Limits limits_;
  Rules rules_;
  BucketTable table_;
  std::array<BucketConfig, 4> configs_{};
  Seconds now_{1000.0};

  // Of the operation under way.
  std::string text_;
  KeyView key_;
  BucketConfig config_;
  double cost_ = 1.0;
  std::optional<Bucket> known_;
  bool evicting_ = false;
  bool some_full_ = false;
  std::uint64_t evicted_before_ = 0;
  std::optional<Seconds> sweeping_;

  std::map<std::string, Account> accounts_;
  std::list<std::string> recency_;  // most recently used last
  Counters expected_;
};

}  // namespace
}  // namespace peercore::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  peercore::fuzz::Run(data, size).go();
  return 0;
}

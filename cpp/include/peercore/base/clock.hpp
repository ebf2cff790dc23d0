#pragma once

#include <chrono>

namespace peercore {

/// Time inside the core: seconds as a double, so that a caller's own clock (any epoch) passes through unrounded.
using Seconds = std::chrono::duration<double>;

/// Where time comes from. Deciders never hold one: they take the reading as an argument. The drivers hold it, and tests
/// put a ManualClock there.
class Clock {
 public:
  Clock() = default;
  Clock(const Clock&) = delete;
  Clock& operator=(const Clock&) = delete;
  virtual ~Clock() = default;

  /// Never goes back. Origin unspecified; used for every interval.
  [[nodiscard]] virtual Seconds monotonic() const noexcept = 0;
  /// Seconds since the Unix epoch. May step in either direction; used only for what people and files see.
  [[nodiscard]] virtual Seconds wall() const noexcept = 0;
};

/// The machine's clocks. Thread-safe; one reading costs about 27 ns.
class SystemClock final : public Clock {
 public:
  [[nodiscard]] Seconds monotonic() const noexcept override;
  [[nodiscard]] Seconds wall() const noexcept override;

  /// Like `monotonic`, one scheduler tick or less behind it and never ahead, for a fifth of the price.
  [[nodiscard]] static Seconds coarse_monotonic() noexcept;
  /// Longest a tick lasts on any common kernel configuration (100 Hz).
  static constexpr Seconds kCoarseLag{0.010};
};

/// A clock that a test sets. Not thread-safe.
class ManualClock final : public Clock {
 public:
  [[nodiscard]] Seconds monotonic() const noexcept override { return monotonic_; }
  [[nodiscard]] Seconds wall() const noexcept override { return wall_; }

  void advance(Seconds by) noexcept {
    monotonic_ += by;
    wall_ += by;
  }
  /// Steps the wall clock alone, as NTP or an administrator does.
  void step_wall(Seconds by) noexcept { wall_ += by; }

 private:
  Seconds monotonic_{1000.0};
  Seconds wall_{1.7e9};
};

/// Shows monotonic readings as epoch times. The offset between the two clocks is kept, so that the same instant always
/// shows as the same epoch time, and is taken anew only once the wall clock has been stepped by more than `kStep`.
/// Not thread-safe.
class EpochMap {
 public:
  static constexpr Seconds kStep{0.010};
  static constexpr Seconds kRecheckEvery{1.0};

  /// True when the wall clock has to be read again: the first time, then once in `kRecheckEvery`.
  [[nodiscard]] bool stale(Seconds monotonic) const noexcept { return monotonic >= recheck_at_; }

  /// Takes in one reading of both clocks.
  void observe(Seconds monotonic, Seconds wall) noexcept;

  [[nodiscard]] Seconds to_epoch(Seconds monotonic) const noexcept { return monotonic + offset_; }
  [[nodiscard]] Seconds to_monotonic(Seconds epoch) const noexcept { return epoch - offset_; }

 private:
  Seconds offset_{0.0};
  Seconds recheck_at_{-1.0e300};
};

}  // namespace peercore

#include "peercore/base/clock.hpp"

#include <ctime>

#include <cmath>

namespace peercore {
namespace {

Seconds read(clockid_t id) noexcept {
  timespec now{};
  clock_gettime(id, &now);
  return Seconds{static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9};
}

}  // namespace

Seconds SystemClock::monotonic() const noexcept { return read(CLOCK_MONOTONIC); }
Seconds SystemClock::wall() const noexcept { return read(CLOCK_REALTIME); }
Seconds SystemClock::coarse_monotonic() noexcept { return read(CLOCK_MONOTONIC_COARSE); }

void EpochMap::observe(Seconds monotonic, Seconds wall) noexcept {
  const Seconds offset = wall - monotonic;
  if (std::abs((offset - offset_).count()) > kStep.count()) {
    offset_ = offset;
  }
  recheck_at_ = monotonic + kRecheckEvery;
}

}  // namespace peercore

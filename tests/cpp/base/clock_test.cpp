#include "peercore/base/clock.hpp"

#include <algorithm>
#include <ctime>

#include "gtest/gtest.h"

namespace peercore {
namespace {

TEST(ManualClock, AdvancesBothAndStepsTheWallAlone) {
  ManualClock clock;
  const Seconds monotonic = clock.monotonic();
  const Seconds wall = clock.wall();
  clock.advance(Seconds{2.5});
  EXPECT_EQ(clock.monotonic() - monotonic, Seconds{2.5});
  EXPECT_EQ(clock.wall() - wall, Seconds{2.5});
  clock.step_wall(Seconds{-3600});
  EXPECT_EQ(clock.monotonic() - monotonic, Seconds{2.5});
  EXPECT_EQ(clock.wall() - wall, Seconds{2.5 - 3600});
}

TEST(SystemClock, MonotonicNeverGoesBack) {
  const SystemClock clock;
  Seconds last = clock.monotonic();
  for (int i = 0; i < 100'000; ++i) {
    const Seconds now = clock.monotonic();
    ASSERT_GE(now, last);
    last = now;
  }
}

TEST(SystemClock, WallIsTheUnixTime) {
  const SystemClock clock;
  EXPECT_NEAR(clock.wall().count(), static_cast<double>(std::time(nullptr)), 5.0);
}

// Only one side of `kCoarseLag` is a promise of the kernel; on a loaded machine a tick may come late now and then.
TEST(SystemClock, CoarseIsNeverAheadAndUsuallyWithinItsLag) {
  const SystemClock clock;
  Seconds least_lag{1e9};
  for (int i = 0; i < 100'000; ++i) {
    const Seconds before = clock.monotonic();
    const Seconds coarse = SystemClock::coarse_monotonic();
    ASSERT_LE(coarse, clock.monotonic());
    least_lag = std::min(least_lag, before - coarse);
  }
  EXPECT_LE(least_lag, SystemClock::kCoarseLag);
}

TEST(EpochMap, AsksForTheWallClockAtFirstAndThenOnceASecond) {
  EpochMap map;
  EXPECT_TRUE(map.stale(Seconds{0}));
  EXPECT_TRUE(map.stale(Seconds{-1e12}));
  map.observe(Seconds{1000}, Seconds{1.7e9});
  EXPECT_FALSE(map.stale(Seconds{1000}));
  EXPECT_FALSE(map.stale(Seconds{1000.999}));
  EXPECT_TRUE(map.stale(Seconds{1001}));
  map.observe(Seconds{1001}, Seconds{1.7e9 + 1});
  EXPECT_FALSE(map.stale(Seconds{1001.5}));
}

TEST(EpochMap, ShowsAnInstantAlwaysAsTheSameEpochTime) {
  EpochMap map;
  map.observe(Seconds{1000}, Seconds{1.7e9});
  const Seconds shown = map.to_epoch(Seconds{990});
  EXPECT_EQ(shown, Seconds{1.7e9 - 10});
  // NTP slews: the offset of the two clocks drifts by less than a step.
  for (int i = 1; i < 100; ++i) {
    map.observe(Seconds{1000.0 + i}, Seconds{1.7e9 + i + 0.009});
    ASSERT_EQ(map.to_epoch(Seconds{990}), shown);
  }
}

TEST(EpochMap, FollowsASteppedWallClockInBothDirections) {
  EpochMap map;
  map.observe(Seconds{1000}, Seconds{1.7e9});
  map.observe(Seconds{1001}, Seconds{1.7e9 + 1 - 3600});
  EXPECT_NEAR(map.to_epoch(Seconds{1001}).count(), 1.7e9 + 1 - 3600, 1e-6);
  map.observe(Seconds{1002}, Seconds{1.7e9 + 2 + 3600});
  EXPECT_NEAR(map.to_epoch(Seconds{1002}).count(), 1.7e9 + 2 + 3600, 1e-6);
}

TEST(EpochMap, ADriftThatAddsUpIsFollowedOnceItIsAStep) {
  EpochMap map;
  map.observe(Seconds{1000}, Seconds{1.7e9});
  for (int i = 1; i <= 100; ++i) {
    const double drift = 0.001 * i;
    map.observe(Seconds{1000.0 + i}, Seconds{1.7e9 + i + drift});
    EXPECT_NEAR(map.to_epoch(Seconds{1000.0 + i}).count(), 1.7e9 + i + drift, EpochMap::kStep.count() + 1e-6);
  }
}

TEST(EpochMap, LeadsBack) {
  EpochMap map;
  map.observe(Seconds{12345.678}, Seconds{1.7e9});
  for (const double instant : {0.0, 12345.678, 1e6}) {
    EXPECT_NEAR(map.to_monotonic(map.to_epoch(Seconds{instant})).count(), instant, 1e-6);
  }
}

}  // namespace
}  // namespace peercore

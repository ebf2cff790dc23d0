#include "peercore/base/limits.hpp"

#include <cstddef>

#include "gtest/gtest.h"

namespace peercore {
namespace {

TEST(Limits, DefaultsAreThoseOfTheContract) {
  const Limits limits;
  EXPECT_EQ(limits.max_buckets, 100'000U);
  EXPECT_EQ(limits.max_key_bytes, 64U * 1024 * 1024);
}

TEST(Limits, UnlimitedIsAboveEveryCount) { EXPECT_EQ(Limits::kUnlimited + 1, std::size_t{0}); }

}  // namespace
}  // namespace peercore

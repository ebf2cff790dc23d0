#include "peercore/base/result.hpp"

#include <memory>
#include <string>
#include <utility>
#include <variant>

#include "gtest/gtest.h"

namespace peercore {
namespace {

Result<int> half(int value) {
  if (value % 2 != 0) {
    return Error{Errc::invalid_argument, "odd"};
  }
  return value / 2;
}

Result<bool> is_large(int value) {
  if (value < 0) {
    return Errc::invalid_argument;
  }
  return value > 100;
}

TEST(Result, HoldsAValue) {
  const Result<int> result = half(8);
  ASSERT_TRUE(result.ok());
  EXPECT_TRUE(static_cast<bool>(result));
  EXPECT_EQ(result.value(), 4);
}

TEST(Result, HoldsAnErrorWithItsText) {
  const Result<int> result = half(7);
  ASSERT_FALSE(result.ok());
  EXPECT_FALSE(static_cast<bool>(result));
  EXPECT_EQ(result.error().code, Errc::invalid_argument);
  EXPECT_EQ(result.error().message(), "odd");
}

TEST(Result, ABareCodeIsAnErrorWithoutDetail) {
  const Result<std::string> result = Errc::table_full;
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, Errc::table_full);
  EXPECT_TRUE(result.error().detail.empty());
}

// A false value is not an error.
TEST(Result, TheValueDoesNotDecide) {
  ASSERT_TRUE(half(0).ok());
  EXPECT_EQ(half(0).value(), 0);
  ASSERT_TRUE(is_large(1).ok());
  EXPECT_FALSE(is_large(1).value());
}

TEST(Result, MovesWhatCannotBeCopied) {
  Result<std::unique_ptr<int>> result(std::make_unique<int>(5));
  ASSERT_TRUE(result);
  const std::unique_ptr<int> taken = std::move(result).value();
  EXPECT_EQ(*taken, 5);
}

TEST(Result, ValueCanBeChangedInPlace) {
  Result<std::string> result(std::string("a"));
  result.value() += "b";
  EXPECT_EQ(result.value(), "ab");
}

// A programming mistake ends in an exception, not in reading the wrong alternative.
TEST(Result, TheWrongSideIsNeverRead) {
  EXPECT_THROW(static_cast<void>(half(7).value()), std::bad_variant_access);
  EXPECT_THROW(static_cast<void>(half(8).error()), std::bad_variant_access);
}

}  // namespace
}  // namespace peercore

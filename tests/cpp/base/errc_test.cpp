#include "peercore/base/errc.hpp"

#include <set>
#include <string>
#include <system_error>

#include "gtest/gtest.h"

namespace peercore {
namespace {

TEST(Errc, EveryCodeHasAMessageOfItsOwn) {
  std::set<std::string> messages;
  for (int value = 1; value <= kLastErrc; ++value) {
    const std::string message = make_error_code(static_cast<Errc>(value)).message();
    EXPECT_FALSE(message.empty()) << value;
    EXPECT_NE(message, "unknown error") << value;
    EXPECT_TRUE(messages.insert(message).second) << value << " repeats: " << message;
  }
  EXPECT_EQ(messages.size(), static_cast<std::size_t>(kLastErrc));
}

TEST(Errc, KLastErrcIsTheLastOne) {
  EXPECT_EQ(make_error_code(static_cast<Errc>(kLastErrc + 1)).message(), "unknown error");
  EXPECT_EQ(make_error_code(static_cast<Errc>(0)).message(), "unknown error");
}

TEST(Errc, IsAnErrorCodeOfTheCoreCategory) {
  const std::error_code code = Errc::table_full;
  EXPECT_TRUE(code);
  EXPECT_EQ(code, Errc::table_full);
  EXPECT_NE(code, Errc::key_too_long);
  EXPECT_STREQ(code.category().name(), "peercore");
  EXPECT_EQ(&code.category(), &core_category());
}

TEST(Error, SaysItsDetailOrElseTheCodesMessage) {
  EXPECT_EQ((Error{Errc::invalid_config, "burst_size must be 1"}).message(), "burst_size must be 1");
  EXPECT_EQ((Error{Errc::table_full, {}}).message(), make_error_code(Errc::table_full).message());
}

}  // namespace
}  // namespace peercore

#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "peercore/base/key_table.hpp"

namespace peercore::test {

/// A key with a well mixed hash of its bytes. As in CPython, the hash does not depend on the tag. `text` must outlive
/// the key.
inline KeyView key_of(std::string_view text, std::uint8_t tag = 0) {
  return {text, std::hash<std::string_view>{}(text), tag};
}

/// "<prefix><number>", a text of its own for every number.
inline std::string numbered(std::string_view prefix, std::size_t number) {
  return std::string(prefix) + std::to_string(number);
}

}  // namespace peercore::test

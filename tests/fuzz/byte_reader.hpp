#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>

namespace peercore::fuzz {

/// Turns a fuzzer's input into decisions, byte by byte. After the end every byte reads as 0; ask `done` first.
class ByteReader {
 public:
  ByteReader(const std::uint8_t* data, std::size_t size) : rest_(data, size) {}

  [[nodiscard]] bool done() const noexcept { return rest_.empty(); }

  std::uint8_t byte() noexcept {
    if (rest_.empty()) {
      return 0;
    }
    const std::uint8_t value = rest_.front();
    rest_ = rest_.subspan(1);
    return value;
  }

  /// A number below `end`, which is 1 to 256.
  std::uint8_t below(unsigned end) noexcept { return static_cast<std::uint8_t>(byte() % end); }

 private:
  std::span<const std::uint8_t> rest_;
};

/// Ends the run in a way that the fuzzer notices, with what was expected.
inline void require(bool holds, const char* what) {
  if (!holds) {
    std::fprintf(stderr, "does not hold: %s\n", what);
    std::abort();
  }
}

}  // namespace peercore::fuzz

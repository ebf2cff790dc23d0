#pragma once

#include <cstddef>
#include <limits>

namespace peercore {

/// Every bound on what others can make this process hold, in one place. A component takes the fields it needs;
/// exceeding one is a counted, named event and never costs memory.
struct Limits {
  /// "No bound", for callers who ask for v1.2's unbounded tables.
  static constexpr std::size_t kUnlimited = std::numeric_limits<std::size_t>::max();

  /// Token buckets kept by one rate limiter. 100 000 keys are about 8 MB beside their text; evicting a bucket that is
  /// full again loses nothing, so the bound only shows under attack or with very slow refill.
  std::size_t max_buckets = 100'000;

  /// Bytes of key text kept by one table. Keys come from the network (paths, header values): without this bound
  /// 100 000 keys of 64 KB each would be 6.4 GB.
  std::size_t max_key_bytes = std::size_t{64} << 20U;

  /// What the pages of that text may take, once keys of changing length have left them half empty.
  [[nodiscard]] std::size_t max_key_page_bytes() const noexcept {
    constexpr std::size_t kPageOfEachSize = std::size_t{256} << 10U;
    return max_key_bytes > kUnlimited / 4 ? kUnlimited : 2 * max_key_bytes + kPageOfEachSize;
  }
};

}  // namespace peercore

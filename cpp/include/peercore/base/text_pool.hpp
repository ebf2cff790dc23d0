#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

namespace peercore {

/// Keeps many short byte strings for 4 bytes of overhead each (plus rounding up to 8), named by 32-bit handles.
///
/// Pages of 4 KB hold blocks of one size; a page whose last block is released serves any other size next, so that a
/// table whose keys change length over time keeps its footprint. malloc costs 8 to 24 bytes a string and a 64-bit
/// pointer, which is why the table does not use it.
/// Not thread-safe. Views stay valid until their handle is released.
class TextPool {
 public:
  using Handle = std::uint32_t;

  /// Copies `text` in. `tag` is kept beside it and belongs to the caller (below 8).
  [[nodiscard]] Handle store(std::string_view text, std::uint8_t tag);
  void release(Handle handle) noexcept;

  [[nodiscard]] std::string_view text(Handle handle) const noexcept;
  [[nodiscard]] std::uint8_t tag(Handle handle) const noexcept;
  /// Whether the handle names this text under this tag.
  [[nodiscard]] bool holds(Handle handle, std::string_view text, std::uint8_t tag) const noexcept;

  /// Starts loading a text.
  void prefetch(Handle handle) const noexcept { __builtin_prefetch(block(handle)); }

  /// Bytes of text stored now, without overhead.
  [[nodiscard]] std::size_t text_bytes() const noexcept { return text_bytes_; }
  /// Bytes of the pages that hold it: more than `text_bytes` where releases left pages half empty.
  [[nodiscard]] std::size_t page_bytes() const noexcept { return page_bytes_; }
  /// Bytes held from the system: pages and their descriptions.
  [[nodiscard]] std::size_t memory_bytes() const noexcept;

  /// True when no handle is left for another page. Small texts might still find room in the pages there are.
  [[nodiscard]] bool full() const noexcept { return unused_page_ == kNoPage && pages_.size() >= kMaxPages; }

  /// Longest text one pool can hold: the length shares a 32-bit word with the tag.
  static constexpr std::size_t kMaxText = (std::size_t{1} << 29U) - 1;

 private:
  // A block is one 32-bit word (length << 3 | tag) and the text.
  static constexpr std::size_t kHeader = sizeof(std::uint32_t);
  static constexpr std::uint32_t kUnit = 8;
  static constexpr std::uint32_t kPageBytes = 4096;
  static constexpr std::uint32_t kUnitsPerPage = kPageBytes / kUnit;
  static constexpr std::uint32_t kLargestBlock = 512;
  static constexpr std::uint32_t kClasses = kLargestBlock / kUnit + 1;
  static constexpr std::uint32_t kNoPage = 0xFFFFFFFF;
  /// One less than handles can name: the all-ones handle belongs to the callers, for "none".
  static constexpr std::size_t kMaxPages = (std::size_t{1} << 32U) / kUnitsPerPage - 1;
  static constexpr std::uint16_t kNoBlock = 0xFFFF;

  struct Page {
    std::unique_ptr<std::byte[]> bytes;
    std::uint32_t size = 0;         ///< bytes allocated: kPageBytes, or one large text
    std::uint32_t previous = 0;     ///< list of pages of this class that have room
    std::uint32_t next = 0;         ///< the same; for an unused page: the next unused one
    std::uint16_t block_class = 0;  ///< block size in units; 0: one large text or unused
    std::uint16_t live = 0;         ///< blocks in use
    std::uint16_t fresh = 0;        ///< first unit never handed out
    std::uint16_t free_block = kNoBlock;
  };

  [[nodiscard]] std::uint32_t page_with_room(std::uint32_t block_class);
  [[nodiscard]] std::uint32_t new_page(std::uint32_t size);
  void retire_page(std::uint32_t index) noexcept;
  void link(std::uint32_t index) noexcept;
  void unlink(std::uint32_t index) noexcept;
  [[nodiscard]] std::uint16_t take_block(std::uint32_t index) noexcept;
  [[nodiscard]] static bool has_room(const Page& page) noexcept;
  [[nodiscard]] std::byte* block(Handle handle) const noexcept;

  std::vector<Page> pages_;
  std::array<std::uint32_t, kClasses> with_room_ = filled();
  std::uint32_t unused_page_ = kNoPage;
  std::size_t text_bytes_ = 0;
  std::size_t page_bytes_ = 0;

  [[nodiscard]] static constexpr std::array<std::uint32_t, kClasses> filled() {
    std::array<std::uint32_t, kClasses> heads{};
    heads.fill(kNoPage);
    return heads;
  }
};

inline std::byte* TextPool::block(Handle handle) const noexcept {
  return pages_[handle / kUnitsPerPage].bytes.get() + std::size_t{handle % kUnitsPerPage} * kUnit;
}

inline bool TextPool::holds(Handle handle, std::string_view text, std::uint8_t tag) const noexcept {
  const std::byte* at = block(handle);
  std::uint32_t word = 0;
  std::memcpy(&word, at, sizeof word);
  return word == (static_cast<std::uint32_t>(text.size()) << 3U | tag) &&
         (text.empty() || std::memcmp(at + kHeader, text.data(), text.size()) == 0);  // an empty view may have no data
}

}  // namespace peercore

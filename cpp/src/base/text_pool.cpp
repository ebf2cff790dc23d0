#include "peercore/base/text_pool.hpp"

#include <cstring>

namespace peercore {
namespace {

std::uint32_t read_word(const std::byte* at) noexcept {
  std::uint32_t word = 0;
  std::memcpy(&word, at, sizeof word);
  return word;
}

void write_word(std::byte* at, std::uint32_t word) noexcept { std::memcpy(at, &word, sizeof word); }

}  // namespace

TextPool::Handle TextPool::store(std::string_view text, std::uint8_t tag) {
  const std::size_t need = kHeader + text.size();
  std::uint32_t page = 0;
  std::uint16_t unit = 0;
  if (need <= kLargestBlock) {
    page = page_with_room(static_cast<std::uint32_t>((need + kUnit - 1) / kUnit));
    unit = take_block(page);
  } else {
    page = new_page(static_cast<std::uint32_t>(need));
    pages_[page].live = 1;
  }
  const Handle handle = page * kUnitsPerPage + unit;
  std::byte* at = block(handle);
  write_word(at, static_cast<std::uint32_t>(text.size()) << 3U | tag);
  if (!text.empty()) {
    std::memcpy(at + kHeader, text.data(), text.size());
  }
  text_bytes_ += text.size();
  return handle;
}

void TextPool::release(Handle handle) noexcept {
  const std::uint32_t index = handle / kUnitsPerPage;
  text_bytes_ -= text(handle).size();
  Page& page = pages_[index];
  if (page.block_class == 0) {
    retire_page(index);
    return;
  }
  const bool was_full = !has_room(page);
  write_word(block(handle), page.free_block);
  page.free_block = static_cast<std::uint16_t>(handle % kUnitsPerPage);
  --page.live;
  if (was_full) {
    link(index);
  }
  if (page.live == 0) {
    unlink(index);
    retire_page(index);
  }
}

std::string_view TextPool::text(Handle handle) const noexcept {
  const std::byte* at = block(handle);
  return {reinterpret_cast<const char*>(at) + kHeader, read_word(at) >> 3U};
}

std::uint8_t TextPool::tag(Handle handle) const noexcept {
  return static_cast<std::uint8_t>(read_word(block(handle)) & 7U);
}

std::size_t TextPool::memory_bytes() const noexcept { return page_bytes_ + pages_.capacity() * sizeof(Page); }

bool TextPool::has_room(const Page& page) noexcept {
  return page.free_block != kNoBlock || page.fresh + page.block_class <= kUnitsPerPage;
}

std::uint32_t TextPool::page_with_room(std::uint32_t block_class) {
  if (with_room_[block_class] == kNoPage) {
    const std::uint32_t index = new_page(kPageBytes);
    pages_[index].block_class = static_cast<std::uint16_t>(block_class);
    link(index);
  }
  return with_room_[block_class];
}

std::uint16_t TextPool::take_block(std::uint32_t index) noexcept {
  Page& page = pages_[index];
  std::uint16_t unit = page.free_block;
  if (unit != kNoBlock) {
    page.free_block = static_cast<std::uint16_t>(read_word(page.bytes.get() + std::size_t{unit} * kUnit));
  } else {
    unit = page.fresh;
    page.fresh = static_cast<std::uint16_t>(page.fresh + page.block_class);
  }
  ++page.live;
  if (!has_room(page)) {
    unlink(index);
  }
  return unit;
}

std::uint32_t TextPool::new_page(std::uint32_t size) {
  auto bytes = std::make_unique_for_overwrite<std::byte[]>(size);
  std::uint32_t index = unused_page_;
  if (index == kNoPage) {
    index = static_cast<std::uint32_t>(pages_.size());
    pages_.emplace_back();
  } else {
    unused_page_ = pages_[index].next;
  }
  pages_[index] = Page{};
  pages_[index].bytes = std::move(bytes);
  pages_[index].size = size;
  page_bytes_ += size;
  return index;
}

void TextPool::retire_page(std::uint32_t index) noexcept {
  Page& page = pages_[index];
  page_bytes_ -= page.size;
  page.bytes.reset();
  page.size = 0;
  page.block_class = 0;
  page.next = unused_page_;
  unused_page_ = index;
}

void TextPool::link(std::uint32_t index) noexcept {
  Page& page = pages_[index];
  std::uint32_t& head = with_room_[page.block_class];
  page.previous = kNoPage;
  page.next = head;
  if (head != kNoPage) {
    pages_[head].previous = index;
  }
  head = index;
}

void TextPool::unlink(std::uint32_t index) noexcept {
  const Page& page = pages_[index];
  if (page.previous != kNoPage) {
    pages_[page.previous].next = page.next;
  } else {
    with_room_[page.block_class] = page.next;
  }
  if (page.next != kNoPage) {
    pages_[page.next].previous = page.previous;
  }
}

}  // namespace peercore

#pragma once

#include <string>
#include <string_view>
#include <system_error>

namespace peercore {

/// Every way a core operation can fail. The binding layer maps each value to one Python exception class (errors.cpp).
enum class Errc {
  /// A configuration value is out of range. The caller corrects the value named in the message. Python: ValueError.
  invalid_config = 1,
  /// An argument is out of range, such as a cost below one. Python: ValueError.
  invalid_argument,
  /// A single key is larger than `Limits::max_key_bytes`. Shorten or hash it. Python: ValueError.
  key_too_long,
  /// A table reached the number of entries its 32-bit handles can name. Bound it, or split it. Python: MemoryError.
  table_full,
};

/// Number of the last `Errc`; a test walks 1..kLastErrc to see that each one has a message and a Python class.
inline constexpr int kLastErrc = static_cast<int>(Errc::table_full);

[[nodiscard]] const std::error_category& core_category() noexcept;
[[nodiscard]] std::error_code make_error_code(Errc code) noexcept;

/// What went wrong, with the text a person reads. Value type, safe to copy between threads.
struct Error {
  Errc code;
  std::string detail;

  /// `detail` when there is one, else the category's message for the code.
  [[nodiscard]] std::string message() const;
};

}  // namespace peercore

template <>
struct std::is_error_code_enum<peercore::Errc> : std::true_type {};

#include "peercore/base/errc.hpp"

namespace peercore {
namespace {

class CoreCategory final : public std::error_category {
 public:
  [[nodiscard]] const char* name() const noexcept override { return "peercore"; }

  [[nodiscard]] std::string message(int value) const override {
    switch (static_cast<Errc>(value)) {
      case Errc::invalid_config:
        return "invalid configuration";
      case Errc::invalid_argument:
        return "invalid argument";
      case Errc::key_too_long:
        return "key too long";
      case Errc::table_full:
        return "table is full";
    }
    return "unknown error";
  }
};

}  // namespace

const std::error_category& core_category() noexcept {
  static const CoreCategory category;
  return category;
}

std::error_code make_error_code(Errc code) noexcept { return {static_cast<int>(code), core_category()}; }

std::string Error::message() const { return detail.empty() ? make_error_code(code).message() : detail; }

}  // namespace peercore

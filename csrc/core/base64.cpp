#include "core/base64.h"

#include <algorithm>
#include <array>
#include <cstdint>

#include "core/error.h"

namespace mlip {
namespace {

constexpr char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

}  // namespace

std::string to_base64(const std::string& bytes) {
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t k = 0; k < bytes.size(); k += 3) {
    const std::size_t n = std::min<std::size_t>(3, bytes.size() - k);
    std::uint32_t group = 0;
    for (std::size_t b = 0; b < 3; ++b) group = group << 8 | (b < n ? static_cast<unsigned char>(bytes[k + b]) : 0u);
    for (std::size_t c = 0; c < 4; ++c) text += c <= n ? alphabet[group >> (18 - 6 * c) & 63] : '=';
  }
  return text;
}

std::string from_base64(const std::string& text) {
  std::array<int, 256> value;
  value.fill(-1);
  for (int k = 0; k < 64; ++k) value[static_cast<unsigned char>(alphabet[k])] = k;
  const auto length = text.find_last_not_of('=') + 1;
  if (text.size() % 4 != 0 || text.size() - length > 2)
    throw Error(std::to_string(text.size()) + " characters are no base64");
  std::string bytes;
  bytes.reserve(length / 4 * 3 + 3);
  std::uint32_t group = 0;
  int bits = 0;
  for (std::size_t k = 0; k < length; ++k) {
    const int digit = value[static_cast<unsigned char>(text[k])];
    if (digit < 0) throw Error("character " + std::to_string(k) + " is not base64");
    group = group << 6 | static_cast<std::uint32_t>(digit);
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      bytes += static_cast<char>(group >> bits & 0xff);
    }
  }
  return bytes;
}

}  // namespace mlip

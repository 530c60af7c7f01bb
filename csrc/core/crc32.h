// CRC-32 of zip files (ISO 3309; the polynomial 0xedb88320, bits reflected).
#pragma once

#include <cstdint>
#include <string_view>

namespace mlip {

/// Checksum of bytes that come in pieces.
/// @param before of the pieces before these; 0 for none
std::uint32_t crc32(std::string_view bytes, std::uint32_t before = 0);

}  // namespace mlip

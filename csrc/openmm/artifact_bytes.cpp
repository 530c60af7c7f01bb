#include "artifact_bytes.h"

#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "core/error.h"

namespace mlip_openmm {
namespace {

constexpr char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

}  // namespace

std::string read_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw mlip::Error("'" + path + "' cannot be read. Check its permissions");
  return std::string((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
}

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
    throw mlip::Error("the embedded artifact is damaged: " + std::to_string(text.size()) +
                      " characters of base64. Write the XML anew");
  std::string bytes;
  bytes.reserve(length / 4 * 3 + 3);
  std::uint32_t group = 0;
  int bits = 0;
  for (std::size_t k = 0; k < length; ++k) {
    const int digit = value[static_cast<unsigned char>(text[k])];
    if (digit < 0)
      throw mlip::Error("the embedded artifact is damaged: character " + std::to_string(k) +
                        " is not base64. Write the XML anew");
    group = group << 6 | static_cast<std::uint32_t>(digit);
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      bytes += static_cast<char>(group >> bits & 0xff);
    }
  }
  return bytes;
}

TemporaryFile::TemporaryFile(const std::string& bytes)
    : path_((std::filesystem::temp_directory_path() / "mlip-embedded-XXXXXX").string()) {
  const int handle = mkstemp(path_.data());
  if (handle < 0) throw mlip::Error("no file can be made as '" + path_ + "'. Set TMPDIR to a folder with space");
  close(handle);
  std::ofstream file(path_, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  if (!file) {
    std::remove(path_.c_str());
    throw mlip::Error("'" + path_ + "' cannot hold the embedded artifact (" + std::to_string(bytes.size()) +
                      " bytes). Set TMPDIR to a folder with space");
  }
}

TemporaryFile::~TemporaryFile() { std::remove(path_.c_str()); }

}  // namespace mlip_openmm

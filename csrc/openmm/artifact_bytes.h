// The bytes of an artifact: their text form in XML, and a file to load embedded ones from.
#pragma once

#include <string>

namespace mlip_openmm {

/// All bytes of a file. @throws mlip::Error when it cannot be read.
std::string read_bytes(const std::string& path);

/// Base64 (RFC 4648) with padding and no line breaks.
std::string to_base64(const std::string& bytes);
/// @throws mlip::Error for a character outside the alphabet or a wrong length.
std::string from_base64(const std::string& text);

/// Bytes as a file of the system's temporary folder, for as long as the object lives.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& bytes);
  ~TemporaryFile();
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace mlip_openmm

// The bytes of an artifact, and a file to load embedded ones from.
#pragma once

#include <string>

namespace mlip_openmm {

/// All bytes of a file. @throws mlip::Error when it cannot be read.
std::string read_bytes(const std::string& path);

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

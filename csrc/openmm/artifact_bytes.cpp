#include "artifact_bytes.h"

#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "core/error.h"

namespace mlip_openmm {

std::string read_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw mlip::Error("'" + path + "' cannot be read. Check its permissions");
  return std::string((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
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

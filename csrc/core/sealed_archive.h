// The archive that an artifact is: a zip file of which no byte can change unseen.
//
// python/mlip_deploy/artifact/sealed_archive.py writes it and says how it is made up; this is the other reader.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <map>
#include <string>
#include <vector>

namespace mlip {

/// The records of an artifact. Every byte of the file has been verified once the constructor returns.
class SealedArchive {
 public:
  /// @throws Error for a file that is missing, foreign or damaged; it names the record.
  explicit SealedArchive(const std::string& path);

  const std::string& path() const { return path_; }

  bool has(const std::string& name) const;

  /// Content of a record of mlip-deploy (below `extra/mlip/`). @throws Error if there is none of this name.
  const std::string& own(const std::string& name) const;

  /// Of the manifest without the domain, and so of every record but the validation record and the domain, which are
  /// said of a model and not part of it: 64 hexadecimal digits.
  std::string content_sha256() const;

  struct Record {
    std::string name;  ///< without the folder
    std::uint32_t crc;
    std::uint32_t size;    ///< bytes
    std::uint32_t offset;  ///< of its header in the file
  };

 private:
  std::string path_;
  std::vector<Record> records_;
  std::map<std::string, std::string> own_;

  std::string read_directory(std::ifstream& file, std::uint64_t& begin, std::size_t& n_entries) const;
  void list(const std::string& directory);
  void verify_content(std::ifstream& file, const Record& record);
  void compare_manifests(const std::string& found, const std::string& expected) const;
  [[noreturn]] void damaged(const std::string& what) const;
  [[noreturn]] void foreign() const;
};

}  // namespace mlip

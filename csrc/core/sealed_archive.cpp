#include "core/sealed_archive.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string_view>

#include "core/crc32.h"
#include "core/error.h"
#include "core/sha256.h"

namespace mlip {
namespace {

constexpr std::string_view own_folder = "extra/mlip/";
constexpr const char* manifest_record = "extra/mlip/manifest.txt";
constexpr const char* validation_record = "extra/mlip/validation.json";
constexpr const char* domain_record = "extra/mlip/domain";

const std::string export_line = "mlip export FAMILY SOURCE -o NAME.mlip.pt";
const std::string again = "Copy it again, or write it anew: " + export_line;

const std::string folder = "artifact/";
constexpr std::size_t alignment = 64;
constexpr std::size_t chunk_bytes = std::size_t(1) << 20;

// Sizes of the fixed parts of a zip file (APPNOTE.TXT): of a record, of its entry in the directory, and the end.
constexpr std::size_t header_bytes = 30, entry_bytes = 46, end_bytes = 22;
constexpr std::uint32_t version = 20, utf8_names = 0x0800, stored = 0, midnight = 0, first_of_1980 = 0x0021;

/// Numbers as a zip file holds them, the lowest byte first.
struct Bytes {
  std::string text;
  Bytes& two(std::size_t value) { return put(value, 2); }
  Bytes& four(std::size_t value) { return put(value, 4); }
  Bytes& put(std::size_t value, int n) {
    for (int k = 0; k < n; ++k) text += static_cast<char>(value >> (8 * k) & 0xff);
    return *this;
  }
};

std::size_t number(std::string_view bytes, std::size_t at, std::size_t n) {
  std::size_t value = 0;
  for (std::size_t k = 0; k < n; ++k) value |= std::size_t(static_cast<unsigned char>(bytes[at + k])) << (8 * k);
  return value;
}

/// What stands before the content: fixed part, name, padding.
std::string header_of(const SealedArchive::Record& record) {
  const std::string name = folder + record.name;
  const std::size_t unpadded = record.offset + header_bytes + name.size() + 4;
  const std::size_t padding = (alignment - unpadded % alignment) % alignment;
  Bytes fixed{"PK\x03\x04"};
  fixed.two(version).two(utf8_names).two(stored).two(midnight).two(first_of_1980);
  fixed.four(record.crc).four(record.size).four(record.size).two(name.size()).two(4 + padding);
  fixed.text += name + "FB";
  return fixed.two(padding).text + std::string(padding, 'Z');
}

/// What stands in the directory.
std::string entry_of(const SealedArchive::Record& record) {
  const std::string name = folder + record.name;
  Bytes fixed{"PK\x01\x02"};
  fixed.two(version).two(version).two(utf8_names).two(stored).two(midnight).two(first_of_1980);
  fixed.four(record.crc).four(record.size).four(record.size).two(name.size()).two(0).two(0).two(0).two(0).four(0);
  return fixed.four(record.offset).text + name;
}

std::string end_of(std::size_t n_entries, std::size_t size, std::size_t offset) {
  Bytes end{"PK\x05\x06"};
  return end.two(0).two(0).two(n_entries).two(n_entries).four(size).four(offset).two(0).text;
}

std::string hexadecimal(std::uint32_t value) {
  char text[9];
  std::snprintf(text, sizeof text, "%08x", value);
  return text;
}

std::string manifest_of(std::vector<SealedArchive::Record> records) {
  std::sort(records.begin(), records.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  std::string lines;
  for (const auto& record : records)
    if (record.name != manifest_record && record.name != validation_record)
      lines += hexadecimal(record.crc) + " " + std::to_string(record.size) + " " + record.name + "\n";
  return lines;
}

/// Lines of a manifest by the name in them.
std::map<std::string, std::string> by_name(const std::string& manifest) {
  std::map<std::string, std::string> lines;
  std::istringstream text(manifest);
  for (std::string line; std::getline(text, line);) {
    const auto second = line.find(' ', std::min(line.size(), line.find(' ') + 1));
    lines[second == std::string::npos ? "" : line.substr(second + 1)] = line;
  }
  return lines;
}

bool is_own(const std::string& name) { return name.compare(0, own_folder.size(), own_folder) == 0; }

std::string read(std::ifstream& file, std::size_t size) {
  std::string bytes(size, '\0');
  file.read(bytes.data(), static_cast<std::streamsize>(size));
  bytes.resize(static_cast<std::size_t>(file.gcount()));
  return bytes;
}

}  // namespace

SealedArchive::SealedArchive(const std::string& path) : path_(path) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored))
    throw Error("'" + path + "': no such file. Write one with: " + export_line);
  if (std::filesystem::is_directory(path, ignored))
    throw Error("'" + path + "' is a folder, not an artifact (*.mlip.pt)");
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error("'" + path + "' cannot be read. Check its permissions");

  std::uint64_t directory_offset = 0;
  std::size_t n_entries = 0;
  const std::string directory = read_directory(file, directory_offset, n_entries);
  list(directory);
  std::set<std::string> names;
  for (const Record& record : records_) names.insert(record.name);
  if (std::none_of(names.begin(), names.end(), is_own)) foreign();
  if (!names.count(manifest_record))
    throw Error("'" + path + "' has no record '" + manifest_record +
                "', by which the others are verified: it is damaged, or a development version of mlip-deploy wrote "
                "it. " +
                again);
  if (names.size() != records_.size() || n_entries != records_.size())
    damaged("its directory lists a record twice, or not all of them");

  file.clear();
  file.seekg(0);
  std::uint64_t position = 0;
  std::size_t entry_offset = 0;
  for (const Record& record : records_) {
    const std::string entry = entry_of(record);
    if (record.offset != position || directory.compare(entry_offset, entry.size(), entry) != 0)
      damaged("the entry of record '" + record.name + "' in its directory is not what was written");
    entry_offset += entry.size();
    const std::string header = header_of(record);
    if (read(file, header.size()) != header)
      damaged("the header of record '" + record.name + "' is not what was written");
    verify_content(file, record);
    position += header.size() + record.size;
  }
  if (position != directory_offset)
    damaged("its directory begins at byte " + std::to_string(directory_offset) + ", expected " +
            std::to_string(position));
  compare_manifests(manifest_of(records_), own_.at(manifest_record));
}

bool SealedArchive::has(const std::string& name) const {
  return std::any_of(records_.begin(), records_.end(), [&](const Record& record) { return record.name == name; });
}

const std::string& SealedArchive::own(const std::string& name) const {
  const auto found = own_.find(name);
  if (found == own_.end()) throw Error("'" + path_ + "' has no record '" + name + "'. Write it anew: " + export_line);
  return found->second;
}

std::string SealedArchive::content_sha256() const {
  std::string lines;
  for (const auto& [name, line] : by_name(own_.at(manifest_record)))
    if (name != domain_record) lines += line + "\n";
  return sha256(lines);
}

std::string SealedArchive::read_directory(std::ifstream& file, std::uint64_t& begin, std::size_t& n_entries) const {
  const bool starts_like_zip = read(file, 4) == "PK\x03\x04";
  file.clear();
  file.seekg(0, std::ios::end);
  const auto size = static_cast<std::uint64_t>(file.tellg());
  file.seekg(static_cast<std::streamoff>(size - std::min<std::uint64_t>(size, end_bytes)));
  const std::string end = read(file, end_bytes);
  if (end.size() < end_bytes || end.compare(0, 4, "PK\x05\x06") != 0) {
    if (starts_like_zip)
      throw Error("'" + path_ + "' is truncated or damaged (" + std::to_string(size) + " bytes). " + again);
    foreign();
  }
  n_entries = number(end, 10, 2);
  const std::size_t directory_bytes = number(end, 12, 4);
  begin = number(end, 16, 4);
  // torch ends files with two records more, which lie between.
  if (begin + directory_bytes > size - end_bytes) damaged("its end record points outside of the file");
  file.seekg(static_cast<std::streamoff>(begin));
  std::string directory = read(file, directory_bytes);
  const bool sealed = end == end_of(n_entries, directory_bytes, begin) && begin + directory_bytes == size - end_bytes;
  if (!sealed && directory.find(manifest_record) != std::string::npos)
    damaged("its end record is not what was written");
  return directory;
}

/// As the directory says, whoever wrote it.
void SealedArchive::list(const std::string& directory) {
  std::size_t position = 0;
  while (position < directory.size()) {
    if (position + entry_bytes > directory.size() || directory.compare(position, 4, "PK\x01\x02") != 0)
      damaged("its directory is not readable after entry " + std::to_string(records_.size()));
    const auto field = [&](std::size_t at, std::size_t n) { return number(directory, position + at, n); };
    const std::size_t name_bytes = field(28, 2);
    const std::string name = directory.substr(position + entry_bytes, name_bytes);
    const auto slash = name.find('/');
    records_.push_back({slash == std::string::npos ? "" : name.substr(slash + 1),
                        static_cast<std::uint32_t>(field(16, 4)), static_cast<std::uint32_t>(field(24, 4)),
                        static_cast<std::uint32_t>(field(42, 4))});
    position += entry_bytes + name_bytes + field(30, 2) + field(32, 2);
  }
}

void SealedArchive::verify_content(std::ifstream& file, const Record& record) {
  std::uint32_t crc = 0;
  std::string content;
  std::string chunk;
  for (std::size_t left = record.size; left > 0; left -= chunk.size()) {
    chunk = read(file, std::min(left, chunk_bytes));
    if (chunk.empty()) damaged("record '" + record.name + "' is longer than the file");
    crc = crc32(chunk, crc);
    if (is_own(record.name)) content += chunk;
  }
  if (crc != record.crc)
    damaged("record '" + record.name + "' does not hold what was written (CRC-32 " + hexadecimal(crc) + ", expected " +
            hexadecimal(record.crc) + ")");
  if (is_own(record.name)) own_[record.name] = content;
}

void SealedArchive::compare_manifests(const std::string& found, const std::string& expected) const {
  if (found == expected) return;
  const auto here = by_name(found), listed = by_name(expected);
  for (const auto& [name, line] : listed)
    if (!here.count(name)) damaged("record '" + name + "' is missing");
  for (const auto& [name, line] : here) {
    if (!listed.count(name)) damaged("record '" + name + "' does not belong to it");
    if (listed.at(name) != line) damaged("record '" + name + "' holds what another one should hold");
  }
  damaged(std::string("record '") + manifest_record + "' does not list its records as they are");
}

void SealedArchive::damaged(const std::string& what) const {
  throw Error("'" + path_ + "' is damaged: " + what + ". " + again);
}

/// What a file without records of mlip-deploy is.
void SealedArchive::foreign() const {
  if (has("constants.pkl"))
    throw Error("'" + path_ +
                "' is a TorchScript file without a contract: mlip-deploy did not write it. Export the model's "
                "checkpoint instead: " +
                export_line);
  if (has("archive_format"))
    throw Error("'" + path_ +
                "' is a package of torch.export without a contract: mlip-deploy did not write it. Export the model's "
                "checkpoint instead: " +
                export_line);
  if (has("data.pkl"))
    throw Error("'" + path_ + "' is a PyTorch checkpoint, not an exported model. Export it first: mlip export FAMILY " +
                path_ + " -o NAME.mlip.pt   (families: mlip export --list)");
  throw Error("'" + path_ + "' is not an artifact of mlip-deploy (*.mlip.pt). Write one with: " + export_line);
}

}  // namespace mlip

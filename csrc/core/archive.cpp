#include "core/archive.h"

#include <caffe2/serialize/inline_container.h>
#include <torch/version.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>

#include "core/error.h"
#include "core/sha256.h"
#include "core/torch_errors.h"

namespace mlip {
namespace {

constexpr const char* contract_record = "extra/mlip/contract.json";
constexpr const char* signature_record = "extra/mlip/validation.json";

std::string read_record(caffe2::serialize::PyTorchStreamReader& reader, const std::string& name) {
  const auto [data, size] = reader.getRecord(name);
  return std::string(static_cast<const char*>(data.get()), size);
}

/// Of every record but the signature, as Artifact.content_sha256 of python/mlip_deploy/artifact/reader.py says.
std::string content_sha256(caffe2::serialize::PyTorchStreamReader& reader) {
  auto names = reader.getAllRecords();
  std::sort(names.begin(), names.end());
  Sha256 digest;
  for (const auto& name : names) {
    if (name == signature_record) continue;
    const std::string content = read_record(reader, name);
    std::string length(8, '\0');
    for (std::size_t k = 0; k < 8; ++k)
      length[k] = static_cast<char>(static_cast<std::uint64_t>(content.size()) >> (8 * k) & 0xff);
    digest.update(name);
    digest.update(std::string_view("\0", 1));
    digest.update(length);
    digest.update(content);
  }
  return digest.finish();
}

/// Begins as a zip archive does, but its directory, which stands at the end, is missing.
bool is_broken_zip(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  char magic[4] = {};
  file.read(magic, 4);
  if (std::memcmp(magic, "PK\x03\x04", 4) != 0) return false;
  constexpr std::streamoff longest_end_record = 65535 + 22;
  file.seekg(0, std::ios::end);
  file.seekg(std::max<std::streamoff>(0, file.tellg() - longest_end_record));
  const std::string tail((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  return tail.find("PK\x05\x06") == std::string::npos;
}

/// Of a file that does not say of which family it is.
const std::string export_line = "mlip export FAMILY SOURCE -o NAME.mlip.pt";

}  // namespace

Contract read_contract(const std::string& path) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored))
    throw Error("'" + path + "': no such file. Write one with: " + export_line);
  if (std::filesystem::is_directory(path, ignored))
    throw Error("'" + path + "' is a folder, not an artifact (*.mlip.pt)");
  std::unique_ptr<caffe2::serialize::PyTorchStreamReader> reader;
  try {
    reader = std::make_unique<caffe2::serialize::PyTorchStreamReader>(path);
    const bool scripted = reader->hasRecord("constants.pkl");
    if (reader->hasRecord(contract_record)) {
      Contract contract = parse_contract(read_record(*reader, contract_record), path);
      if (scripted != (contract.backend == BackendKind::torchscript))
        throw Error("'" + path + "': the contract says back end " + to_string(contract.backend) + ", the file holds " +
                    (scripted ? "TorchScript" : "none of it") + ". Write it anew: mlip export " +
                    contract.model_family + " SOURCE -o NAME.mlip.pt");
      return contract;
    }
    if (scripted)
      throw Error("'" + path +
                  "' is a TorchScript file without a contract: mlip-deploy did not write it. Export the "
                  "model's checkpoint instead: " +
                  export_line);
    if (reader->hasRecord("archive_format"))
      throw Error("'" + path +
                  "' is a package of torch.export without a contract: mlip-deploy did not write it. Export the "
                  "model's checkpoint instead: " +
                  export_line);
    if (reader->hasRecord("data.pkl"))
      throw Error("'" + path +
                  "' is a PyTorch checkpoint, not an exported model. Export it first: mlip export FAMILY " + path +
                  " -o NAME.mlip.pt   (families: mlip export --list)");
  } catch (const c10::Error&) {
    if (is_broken_zip(path))
      throw Error("'" + path + "' is truncated or damaged (" +
                  std::to_string(std::filesystem::file_size(path, ignored)) +
                  " bytes). Copy it again, or write it anew: " + export_line);
  }
  throw Error("'" + path + "' is not an artifact of mlip-deploy (*.mlip.pt). Write one with: " + export_line);
}

Validation read_validation(const std::string& path, const std::string& engine, const std::string& engine_release) {
  return translate_errors("'" + path + "'", [&] {
    caffe2::serialize::PyTorchStreamReader reader(path);
    Validation found;
    std::string digest;
    if (reader.hasRecord(signature_record)) {
      found.signature = parse_signature(read_record(reader, signature_record), path);
      digest = content_sha256(reader);
    }
    const std::string torch_release = std::string(TORCH_VERSION).substr(0, std::string(TORCH_VERSION).find('+'));
    found.problem = unvalidated(found.signature, digest, {engine, engine_release, torch_release});
    return found;
  });
}

}  // namespace mlip

#include "core/archive.h"

#include <torch/version.h>

#include "core/error.h"
#include "core/sealed_archive.h"

namespace mlip {
namespace {

constexpr const char* contract_record = "extra/mlip/contract.json";
constexpr const char* fixtures_record = "extra/mlip/fixtures.json";
constexpr const char* validation_record = "extra/mlip/validation.json";

}  // namespace

Contract read_contract(const std::string& path) {
  const SealedArchive archive(path);
  Contract contract = parse_contract(archive.own(contract_record), path);
  const bool scripted = archive.has("constants.pkl");
  if (scripted != (contract.backend == BackendKind::torchscript))
    throw Error("'" + path + "': the contract says back end " + to_string(contract.backend) + ", the file holds " +
                (scripted ? "TorchScript" : "none of it") + ". Write it anew: mlip export " + contract.model_family +
                " SOURCE -o NAME.mlip.pt");
  return contract;
}

std::optional<SelfTestFixture> read_self_test(const std::string& path) {
  const SealedArchive archive(path);
  return parse_self_test(archive.own(fixtures_record), path);
}

Validation read_validation(const std::string& path, const std::string& engine, const std::string& engine_release) {
  const SealedArchive archive(path);
  Validation found;
  std::string digest;
  if (archive.has(validation_record)) {
    found.record = parse_validation_record(archive.own(validation_record), path);
    digest = archive.content_sha256();
  }
  const std::string torch_release = std::string(TORCH_VERSION).substr(0, std::string(TORCH_VERSION).find('+'));
  found.problem = unvalidated(found.record, digest, {engine, engine_release, torch_release});
  return found;
}

}  // namespace mlip

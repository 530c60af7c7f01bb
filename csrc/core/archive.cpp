#include "core/archive.h"

#include <torch/version.h>

#include "core/error.h"

namespace mlip {
namespace {

constexpr const char* contract_record = "extra/mlip/contract.json";
constexpr const char* fixtures_record = "extra/mlip/fixtures.json";
constexpr const char* validation_record = "extra/mlip/validation.json";

}  // namespace

Contract read_contract(const SealedArchive& archive) {
  Contract contract = parse_contract(archive.own(contract_record), archive.path());
  const bool scripted = archive.has("constants.pkl");
  if (scripted != (contract.backend == BackendKind::torchscript))
    throw Error("'" + archive.path() + "': the contract says back end " + to_string(contract.backend) +
                ", the file holds " + (scripted ? "TorchScript" : "none of it") + ". Write it anew: mlip export " +
                contract.model_family + " SOURCE -o NAME.mlip.pt");
  return contract;
}

std::optional<SelfTestFixture> read_self_test(const SealedArchive& archive) {
  return parse_self_test(archive.own(fixtures_record), archive.path());
}

Validation read_validation(const SealedArchive& archive, const std::string& engine, const std::string& engine_release) {
  Validation found;
  std::string digest;
  if (archive.has(validation_record)) {
    found.record = parse_validation_record(archive.own(validation_record), archive.path());
    digest = archive.content_sha256();
  }
  const std::string torch_release = std::string(TORCH_VERSION).substr(0, std::string(TORCH_VERSION).find('+'));
  found.problem = unvalidated(found.record, digest, {engine, engine_release, torch_release});
  return found;
}

}  // namespace mlip

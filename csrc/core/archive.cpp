#include "core/archive.h"

#include <torch/version.h>

#include "core/error.h"

namespace mlip {
namespace {

constexpr const char* contract_record = "extra/mlip/contract.json";
constexpr const char* fixtures_record = "extra/mlip/fixtures.json";
constexpr const char* validation_record = "extra/mlip/validation.json";
constexpr const char* domain_record = "extra/mlip/domain";

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

std::string no_features(const Contract& contract) {
  std::string why = "its file has none. Write it anew: mlip export";
  if (contract.backend == BackendKind::aotinductor)
    why = "a compiled file has none. Use one that is not: mlip export without --backend";
  if (contract.model_family == "composed") why = "a file that is composed of several has none. Use that of a member";
  return contract.model_name + ": grades need the features that enter the read-out, and " + why;
}

DomainRecord read_domain(const SealedArchive& archive, const Contract& contract) {
  const std::string fit = "mlip domain fit " + archive.path() + " --frames FRAMES.extxyz";
  if (contract.features == 0) throw Error(no_features(contract));
  if (!archive.has(domain_record))
    throw Error(contract.model_name + " has no grades, since its file has no domain. Type: " + fit);
  DomainRecord record = parse_domain_record(archive.own(domain_record), archive.path());
  if (record.content_sha256 != archive.content_sha256() || record.n_features != contract.features)
    throw Error("'" + archive.path() + "' has the domain of another model: that of " +
                record.content_sha256.substr(0, 12) + ", this is " + archive.content_sha256().substr(0, 12) +
                ". Fit its own: " + fit);
  return record;
}

}  // namespace mlip

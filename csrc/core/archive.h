// The records of an artifact: what a file says about its model, read without loading it.
//
// core/sealed_archive.h verifies them; python/mlip_deploy/artifact/reader.py reads the same.
#pragma once

#include <optional>
#include <string>

#include "core/contract.h"
#include "core/domain_record.h"
#include "core/sealed_archive.h"
#include "core/self_test.h"
#include "core/validation_record.h"

namespace mlip {

/// The contract of a file; the model is not loaded. @throws Error for a contract that is not known.
Contract read_contract(const SealedArchive& archive);

/// What the file is held to where it is loaded; nothing for a file of a time when no fixture was marked.
/// @throws Error for fixtures that are not as they should be.
std::optional<SelfTestFixture> read_self_test(const SealedArchive& archive);

/// What `mlip validate --record` wrote into a file, and whether it holds.
struct Validation {
  std::optional<ValidationRecord> record;
  std::string problem;  ///< why the file has not been shown to work here; "" if it has

  /// The record says that the file failed, or it does not hold here. A file without a record is not doubted.
  bool in_doubt() const { return record && !problem.empty(); }
};

/// @throws Error for a foreign record.
/// @param engine "lammps", say, and the release that is running, "2025.7.22"
Validation read_validation(const SealedArchive& archive, const std::string& engine, const std::string& engine_release);

/// What `mlip domain fit` wrote into a file. @throws Error for a file without one, or with that of another model.
DomainRecord read_domain(const SealedArchive& archive, const Contract& contract);

/// Why a model without features has no grades.
std::string no_features(const Contract& contract);

}  // namespace mlip

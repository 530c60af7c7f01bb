// The validation record of an artifact: what `mlip validate --record` found, and whether it holds in an engine as it is
// here. A record, not cryptography: it says nothing of who made it.
//
// It is the JSON record `mlip/validation.json`, which python/mlip_deploy/artifact/gate.py writes and judges in the same
// way.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace mlip {

struct ValidationRecord {
  bool passed = false;                          ///< the verdict
  std::string content_sha256;                   ///< of every other record of the file
  std::vector<std::string> suites;              ///< that ran
  std::vector<std::string> engines;             ///< in which the fixtures were replayed
  std::map<std::string, std::string> versions;  ///< release of torch, lammps and openmm
  std::vector<std::string> failures;            ///< names of the checks that failed

  /// "fidelity, physics in ase, lammps (torch 2.13.0)".
  std::string describe() const;
};

/// @param source names the file in messages. @throws Error for a text that is not a validation record of schema 1.
ValidationRecord parse_validation_record(const std::string& json, const std::string& source);

/// An engine and the releases that it runs with, such as {"lammps", "2025.7.22", "2.13.0"}.
struct Surroundings {
  std::string engine;
  std::string engine_release;
  std::string torch_release;
};

/// Why a file has not been shown to work there; "" if it has.
/// @param content_sha256 of the file as it is now
std::string unvalidated(const std::optional<ValidationRecord>& record, const std::string& content_sha256,
                        const Surroundings& here);

}  // namespace mlip

// The records of an artifact: what a file says about its model, read without loading it.
//
// core/sealed_archive.h verifies them; python/mlip_deploy/artifact/reader.py reads the same.
#pragma once

#include <optional>
#include <string>

#include "core/contract.h"
#include "core/signature.h"

namespace mlip {

/// The contract of a file, once every byte of it is verified; the model is not loaded. @throws Error for a missing,
/// damaged or foreign file, and for a contract that is not known.
Contract read_contract(const std::string& path);

/// What `mlip validate --sign` wrote into a file, and whether it holds.
struct Validation {
  std::optional<Signature> signature;
  std::string problem;  ///< why the file has not been shown to work here; "" if it has
};

/// Verifies the whole file. @throws Error for a file that is damaged or a foreign signature.
/// @param engine "lammps", say, and the release that is running, "2025.7.22"
Validation read_validation(const std::string& path, const std::string& engine, const std::string& engine_release);

}  // namespace mlip

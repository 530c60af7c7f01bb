// The domain of an artifact: which environments of atoms its model has been shown to know, in the space of the features
// that enter the read-out. What grades are computed from (model/domain.h).
//
// It is the record `mlip/domain`, which python/mlip_deploy/artifact/domain_record.py writes: a line of JSON, then the
// arrays that the line tells of, float32, little-endian, one after the other. The factor of uncertainties stands in the
// line, in base64.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mlip {

/// The environments of one element. An atom's features x [n_features] have coordinates z [n_axes + 1] there:
///   z_a = scales_a axes_a · (x - mean) for each axis,  z_last = scales_last |what of x - mean lies outside of the
///   axes|
/// Its distance is the one of z from the nearest point, its grade the distance over `distance`.
struct DomainOfElement {
  std::string element;        ///< chemical symbol
  std::int64_t n_axes = 0;    ///< orthonormal directions
  std::int64_t n_points = 0;  ///< at least one
  double distance = 0.0;      ///< of grade 1: exceeded by one in a hundred of the reference environments; positive
  std::vector<float> mean;    ///< [n_features]
  std::vector<float> axes;    ///< [n_axes, n_features]
  std::vector<float> scales;  ///< [n_axes + 1]
  std::vector<float> points;  ///< [n_points, n_axes + 1]
};

struct DomainRecord {
  std::string content_sha256;             ///< of the file that it belongs to
  std::int64_t n_features = 0;            ///< as in that file's contract
  std::vector<DomainOfElement> elements;  ///< those with reference environments
  /// [n_features, n_features] eV, of a domain that was fitted to frames with energies, else empty: an energy is
  /// uncertain by |factor · features|, with the features of an atom, or summed over the atoms of a structure
  std::vector<double> uncertainty_factor;
};

/// @param source names the file in messages. @throws Error for bytes that are not a domain of schema 1.
DomainRecord parse_domain_record(const std::string& bytes, const std::string& source);

}  // namespace mlip

// What this library reads of the artifact's format: its schema, the features that a file may require, and the versions
// of mlip's operators. docs/compatibility.md says when a number here changes; python/mlip_deploy/artifact/format.py
// holds the same table for readers without this library, and tests/unit/test_contract.py compares the two.
#pragma once

#include <array>
#include <string_view>

namespace mlip::format {

/// A file of another major schema is refused; of a later minor one, keys that are not known are ignored.
inline constexpr int schema_major = 1;
inline constexpr int schema_minor = 1;

/// What a contract may name in `requires`. A file that requires anything else is refused.
inline constexpr std::array<std::string_view, 3> features = {"positions", "settings", "sum_over_atoms"};

/// The versions of an operator, its backward pass included, that this library computes. A change that a file can tell
/// (arguments, their meaning, the result) makes a new version; the oldest is the first that still means the same.
struct OperatorVersions {
  std::string_view name;
  int oldest;
  int newest;
};

// clang-format off: one a line
inline constexpr OperatorVersions operators[] = {
    {"mlip::adaptive_cutoffs", 1, 1},
    {"mlip::angle_sums", 1, 1},
    {"mlip::edge_harmonics", 1, 1},
    {"mlip::edge_perceptron", 1, 1},
    {"mlip::edge_tensor_product", 1, 3},
    {"mlip::element_linear", 1, 1},
    {"mlip::environment_product", 1, 1},
    {"mlip::equivariant_linear", 1, 1},
    {"mlip::feed_forward", 1, 1},
    {"mlip::gate", 1, 1},
    {"mlip::gated_addition", 1, 1},
    {"mlip::ghost_gather", 1, 1},
    {"mlip::long_range_pairs", 1, 1},
    {"mlip::neighbour_attention", 1, 2},
    {"mlip::so2_convolution", 1, 1},
    {"mlip::sum_over_atoms", 1, 1},
    {"mlip::symmetric_contraction", 1, 1},
    {"mlip::symmetry_functions", 1, 1},
    {"mlip::token_attention", 1, 1},
};
// clang-format on

}  // namespace mlip::format

#include "operators/instruction_sets.h"

#include <torch/script.h>

#include <algorithm>
#include <atomic>
#include <iterator>
#include <string>
#include <vector>

namespace mlip {

// What the *_simd.cpp define under the name of each set.
#define MLIP_DECLARE_KERNELS(set)                                                       \
  extern const AdaptiveCutoffsKernels<float> set##_adaptive_cutoffs_float32;            \
  extern const AdaptiveCutoffsKernels<double> set##_adaptive_cutoffs_float64;           \
  extern const AngleSumsKernels<float> set##_angle_sums_float32;                        \
  extern const AngleSumsKernels<double> set##_angle_sums_float64;                       \
  extern const EdgePerceptronKernels<float> set##_edge_perceptron_float32;              \
  extern const EdgePerceptronKernels<double> set##_edge_perceptron_float64;             \
  extern const TensorProductKernels<float> set##_edge_tensor_product_float32;           \
  extern const TensorProductKernels<double> set##_edge_tensor_product_float64;          \
  extern const EnvironmentProductKernels<float> set##_environment_product_float32;      \
  extern const EnvironmentProductKernels<double> set##_environment_product_float64;     \
  extern const EquivariantLinearKernels<float> set##_equivariant_linear_float32;        \
  extern const EquivariantLinearKernels<double> set##_equivariant_linear_float64;       \
  extern const FeedForwardKernels<float> set##_feed_forward_float32;                    \
  extern const FeedForwardKernels<double> set##_feed_forward_float64;                   \
  extern const GateKernels<float> set##_gate_float32;                                   \
  extern const GateKernels<double> set##_gate_float64;                                  \
  extern const GatedAdditionKernels<float> set##_gated_addition_float32;                \
  extern const GatedAdditionKernels<double> set##_gated_addition_float64;               \
  extern const LongRangePairsKernels<float> set##_long_range_pairs_float32;             \
  extern const LongRangePairsKernels<double> set##_long_range_pairs_float64;            \
  extern const NeighbourAttentionKernels<float> set##_neighbour_attention_float32;      \
  extern const NeighbourAttentionKernels<double> set##_neighbour_attention_float64;     \
  extern const PackedProductKernels<float> set##_packed_product_float32;                \
  extern const PackedProductKernels<double> set##_packed_product_float64;               \
  extern const SO2ConvolutionKernels<float> set##_so2_convolution_float32;              \
  extern const SO2ConvolutionKernels<double> set##_so2_convolution_float64;             \
  extern const SymmetricContractionKernels<float> set##_symmetric_contraction_float32;  \
  extern const SymmetricContractionKernels<double> set##_symmetric_contraction_float64; \
  extern const SymmetryFunctionsKernels<float> set##_symmetry_functions_float32;        \
  extern const SymmetryFunctionsKernels<double> set##_symmetry_functions_float64;       \
  extern const TokenAttentionKernels<float> set##_token_attention_float32;              \
  extern const TokenAttentionKernels<double> set##_token_attention_float64;
#define MLIP_KERNELS(set, type)                                            \
  {&set##_adaptive_cutoffs_##type,    &set##_angle_sums_##type,            \
   &set##_edge_perceptron_##type,     &set##_edge_tensor_product_##type,   \
   &set##_environment_product_##type, &set##_equivariant_linear_##type,    \
   &set##_feed_forward_##type,        &set##_gate_##type,                  \
   &set##_gated_addition_##type,      &set##_long_range_pairs_##type,      \
   &set##_neighbour_attention_##type, &set##_packed_product_##type,        \
   &set##_so2_convolution_##type,     &set##_symmetric_contraction_##type, \
   &set##_symmetry_functions_##type,  &set##_token_attention_##type}
#define MLIP_KERNELS_OF(set) #set, MLIP_KERNELS(set, float32), MLIP_KERNELS(set, float64)

MLIP_DECLARE_KERNELS(portable)
#ifdef MLIP_X86
MLIP_DECLARE_KERNELS(avx2)
MLIP_DECLARE_KERNELS(avx512)
#endif
#ifdef MLIP_PORTABLE_WIDE
MLIP_DECLARE_KERNELS(portable_wide)
#endif

namespace {

bool anywhere() { return true; }
#ifdef MLIP_X86
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
}
#endif

/// All that this library was compiled with, the fastest first. `portable` runs anywhere, and so does `portable_wide`,
/// which builds with tests have behind it: the form of AVX-512 in the instructions of any processor.
const InstructionSet compiled[] = {
#ifdef MLIP_X86
    {MLIP_KERNELS_OF(avx512), has_avx512},
    {MLIP_KERNELS_OF(avx2), has_avx2},
#endif
    {MLIP_KERNELS_OF(portable), anywhere},
#ifdef MLIP_PORTABLE_WIDE
    {MLIP_KERNELS_OF(portable_wide), anywhere},
#endif
};
std::atomic<const InstructionSet*> chosen{nullptr};

std::vector<std::string> supported_instruction_sets() {
  std::vector<std::string> names;
  for (const InstructionSet& set : compiled)
    if (set.supported()) names.emplace_back(set.name);
  return names;
}

void use_instruction_set(const std::string& name) {
  for (const InstructionSet& set : compiled)
    if (set.name == name && set.supported()) {
      chosen.store(&set);
      return;
    }
  TORCH_CHECK(false, "instruction set '", name,
              "' is not one of this processor's: ", c10::Join(", ", supported_instruction_sets()));
}

}  // namespace

const InstructionSet& instruction_set() {
  // `portable` is found anywhere.
  static const InstructionSet* const fastest =
      std::find_if(std::begin(compiled), std::end(compiled), [](const InstructionSet& set) { return set.supported(); });
  const InstructionSet* const set = chosen.load();
  return set != nullptr ? *set : *fastest;
}

}  // namespace mlip

// `mlip` itself is opened in ghost_gather.cpp.
TORCH_LIBRARY_FRAGMENT(mlip, library) {
  library.def("instruction_sets() -> str[]", mlip::supported_instruction_sets);
  library.def("instruction_set() -> str", [] { return std::string(mlip::instruction_set().name); });
  library.def("use_instruction_set(str name) -> ()", mlip::use_instruction_set);
}

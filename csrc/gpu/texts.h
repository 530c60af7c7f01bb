// The sources of kernels for GPUs (*.cu, and the headers that they share with the host), which CMake puts into the
// library as text.
#pragma once

namespace mlip::gpu {

extern const char* const device_edges_text;
extern const char* const device_pair_search_text;
extern const char* const edge_harmonics_recurrences_text;
extern const char* const edge_harmonics_text;
extern const char* const edge_tensor_product_arguments_text;
extern const char* const edge_tensor_product_text;
extern const char* const gate_activation_text;
extern const char* const gate_arguments_text;
extern const char* const gate_text;
extern const char* const symmetric_contraction_arguments_text;
extern const char* const symmetric_contraction_text;
extern const char* const warp_text;

}  // namespace mlip::gpu

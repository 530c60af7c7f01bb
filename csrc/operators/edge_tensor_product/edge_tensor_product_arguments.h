// What the host passes to the kernels of edge_tensor_product.cu. Compiled on both sides, so without a standard library.
#pragma once

namespace mlip::gpu {

constexpr int most_outputs = 16;

/// Pointers to device memory; `void` stands for the type of the model, float or double.
struct EdgeTensorProductArguments {
  long long n_owned, n_nodes, n_edges;
  long long n_intervals, n_rows, kink;  ///< of each table, as in radial_table_layout.h
  const long long* centres;             ///< [n_edges] node index
  const long long* neighbours;          ///< [n_edges] node index
  const long long* first_of_centre;     ///< [n_owned + 1] centre i has edges centre_order[first[i]] ... [first[i + 1])
  const long long* centre_order;        ///< [n_edges], or null when edges are stored centre by centre
  const long long* first_of_neighbour;  ///< [n_nodes + 1] and
  const long long* neighbour_order;     ///< [n_edges]: the same, by neighbour
  const void* features;                 ///< [n_nodes, n_features]
  const void* harmonics;                ///< [n_edges, n_harmonics]
  const void* radial;                   ///< [n_edges, n_weights], or [n_edges] distances in Å for a table
  const void* table;                    ///< [n_tables, n_rows, n_weights], or null
  const long long* table_of_edge;       ///< [n_edges], or null when there is one table
  void* outputs[most_outputs];          ///< forward: [n_owned, 2l+1, channels] each
  const void* output_gradients[most_outputs];  ///< backward: of the same shapes
  void* features_gradient;                     ///< shape of features, overwritten
  void* harmonics_gradient;                    ///< shape of harmonics, overwritten
  void* radial_gradient;                       ///< shape of radial, overwritten
};

}  // namespace mlip::gpu

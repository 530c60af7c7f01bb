// GPU kernels for the edges of a step and the sums over their gradients. Compiled at run time behind gpu/warp.cu and
// `real`, the type of the gradients, by device_edges_gpu.cpp.
//
// A warp has a centre, or a node, and its lanes go through the candidates or edges of it. Each sum is taken in an order
// that depends on the list of candidates alone, without atomic operations: the same input gives the same bits.

struct DeviceEdgesArguments {
  long long n_centres, n_nodes;
  // Of the candidates, between two searches:
  const int* centres;                // [n_centres] engine index
  const long long* first_candidate;  // [n_centres + 1]
  const int* neighbours;             // [n_candidates] engine index
  const int* images;                 // [n_candidates] row of shifts; null without images
  const double* shifts;              // [n_images, 3] Å
  const int* node_of;                // [engine atoms]
  const int* centres_of_node;        // [n_centres] centres, node by node
  const long long* first_centre;     // [n_nodes + 1] into centres_of_node
  const int* incoming;               // [n_candidates] candidates, by the nodes of their neighbours
  const long long* first_incoming;   // [n_nodes + 1] into incoming
  // Of a step:
  const double* positions;  // [engine atoms, 3]
  double length;            // Å per unit of the positions
  double cutoff_squared;    // Å²
  int* edge_of_candidate;   // [n_candidates] first its place among the edges of its centre; -1 outside of the cutoff
  long long* n_edges;       // [n_centres + 1] edges of the centre before; [0] is 0
  const long long* first_edge;  // [n_centres + 1]
  long long* index;             // [2, total] nodes
  double* vectors;              // [total, 3] Å
  long long total;              // number of edges
  // Sums, each null where it is not wanted:
  const real* gradients;     // [total, 3] eV/Å
  double* forces;            // [n_nodes, 3] eV/Å
  double* outgoing_virials;  // [n_nodes, 9] -Σ r ⊗ g, of the edges whose centre is the node, eV
  double* incoming_virials;  // [n_nodes, 9] of the edges whose neighbour it is
};

namespace {

__device__ __forceinline__ void edge_vector(const DeviceEdgesArguments& a, const double* centre, long long candidate,
                                            double* r) {
  const double* const neighbour = a.positions + 3LL * a.neighbours[candidate];
  const double* const shift = a.images ? a.shifts + 3LL * a.images[candidate] : nullptr;
  for (int axis = 0; axis < 3; ++axis)
    r[axis] = (neighbour[axis] - centre[axis]) * a.length + (shift ? shift[axis] : 0.0);
}

/// What a lane has of the sums of a node.
struct Sums {
  double forces[3] = {}, virials[9] = {};

  __device__ __forceinline__ void add(const DeviceEdgesArguments& a, long long edge, bool with_virials) {
    double g[3];
    for (int axis = 0; axis < 3; ++axis) {
      g[axis] = a.gradients[3 * edge + axis];
      forces[axis] += g[axis];
    }
    if (!with_virials) return;
    for (int row = 0; row < 3; ++row)
      for (int column = 0; column < 3; ++column) virials[3 * row + column] -= a.vectors[3 * edge + row] * g[column];
  }

  __device__ __forceinline__ void store_virials(double* target, int lane) {
    for (int k = 0; k < 9; ++k) {
      const double total = sum_of_lanes(virials[k]);
      if (lane == 0) target[k] = total;
    }
  }
};

}  // namespace

/// Which candidates are edges. Decided here alone: another kernel might round a distance otherwise.
extern "C" __global__ void filter_candidates(const DeviceEdgesArguments a) {
  const long long centre = warp_index();
  if (centre >= a.n_centres) return;
  const int lane = lane_index();
  const double* const x = a.positions + 3LL * a.centres[centre];
  const long long end = a.first_candidate[centre + 1];
  int n_found = 0;
  for (long long first = a.first_candidate[centre]; first < end; first += warp_size) {
    const long long candidate = first + lane;
    bool inside = false;
    if (candidate < end) {
      double r[3];
      edge_vector(a, x, candidate, r);
      inside = r[0] * r[0] + r[1] * r[1] + r[2] * r[2] < a.cutoff_squared;
    }
    const unsigned found = __ballot_sync(0xffffffffu, inside);
    if (candidate < end) a.edge_of_candidate[candidate] = inside ? n_found + __popc(found & ((1u << lane) - 1)) : -1;
    n_found += __popc(found);
  }
  if (lane == 0) a.n_edges[centre + 1] = n_found;
}

extern "C" __global__ void write_edges(const DeviceEdgesArguments a) {
  const long long centre = warp_index();
  if (centre >= a.n_centres) return;
  const double* const x = a.positions + 3LL * a.centres[centre];
  const long long node = a.node_of[a.centres[centre]], first_edge = a.first_edge[centre];
  for (long long k = a.first_candidate[centre] + lane_index(); k < a.first_candidate[centre + 1]; k += warp_size) {
    if (a.edge_of_candidate[k] < 0) continue;
    const long long edge = first_edge + a.edge_of_candidate[k];
    a.edge_of_candidate[k] = static_cast<int>(edge);
    a.index[edge] = node;
    a.index[a.total + edge] = a.node_of[a.neighbours[k]];
    edge_vector(a, x, k, a.vectors + 3 * edge);
  }
}

extern "C" __global__ void sums_of_nodes(const DeviceEdgesArguments a) {
  const long long node = warp_index();
  if (node >= a.n_nodes) return;
  const int lane = lane_index();
  Sums outgoing, incoming;
  for (long long c = a.first_centre[node]; c < a.first_centre[node + 1]; ++c) {
    const int centre = a.centres_of_node[c];
    for (long long edge = a.first_edge[centre] + lane; edge < a.first_edge[centre + 1]; edge += warp_size)
      outgoing.add(a, edge, a.outgoing_virials);
  }
  for (long long k = a.first_incoming[node] + lane; k < a.first_incoming[node + 1]; k += warp_size) {
    const int edge = a.edge_of_candidate[a.incoming[k]];
    if (edge >= 0) incoming.add(a, edge, a.incoming_virials);
  }
  if (a.forces)
    for (int axis = 0; axis < 3; ++axis) {
      const double total = sum_of_lanes(outgoing.forces[axis] - incoming.forces[axis]);
      if (lane == 0) a.forces[3 * node + axis] = total;
    }
  if (a.outgoing_virials) outgoing.store_virials(a.outgoing_virials + 9 * node, lane);
  if (a.incoming_virials) incoming.store_virials(a.incoming_virials + 9 * node, lane);
}

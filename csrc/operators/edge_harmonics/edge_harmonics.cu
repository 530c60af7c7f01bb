// GPU kernels of `mlip::edge_harmonics`: a thread for each edge. Compiled at run time behind gpu/warp.cu, the
// recurrences of edge_harmonics_recurrences.h and what edge_harmonics_gpu.cpp writes: `real`, `l_max`, and
// `harmonic_norm`.

struct EdgeHarmonicsArguments {
  long long n_edges;
  const real* vectors;             // [n_edges, 3] Å
  real* distances;                 // forward: [n_edges] Å
  real* harmonics;                 // forward: [n_edges, (l_max+1)²]
  const real* distances_gradient;  // backward
  const real* harmonics_gradient;  // backward
  real* vectors_gradient;          // backward: [n_edges, 3]
};

namespace {
constexpr int n_harmonics = (l_max + 1) * (l_max + 1);

struct SquareRoot {
  __device__ double operator()(double value) const { return sqrt(value); }
};
}  // namespace

extern "C" __global__ void harmonics_of_edges(const EdgeHarmonicsArguments a) {
  const long long edge = thread_index();
  if (edge >= a.n_edges) return;
  mlip::EdgeGeometry<l_max> geometry;
  geometry.set(a.vectors + 3 * edge, l_max, SquareRoot());
  a.distances[edge] = static_cast<real>(geometry.distance);
  geometry.harmonics(harmonic_norm, l_max, a.harmonics + n_harmonics * edge);
}

extern "C" __global__ void harmonics_to_vectors(const EdgeHarmonicsArguments a) {
  const long long edge = thread_index();
  if (edge >= a.n_edges) return;
  mlip::EdgeGeometry<l_max> geometry;
  geometry.set(a.vectors + 3 * edge, l_max, SquareRoot());
  geometry.gradient(harmonic_norm, l_max, a.distances_gradient[edge], a.harmonics_gradient + n_harmonics * edge,
                    a.vectors_gradient + 3 * edge);
}

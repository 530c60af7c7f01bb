// GPU kernels of `mlip::edge_tensor_product`; the formula is in edge_tensor_product_kernels.h.
//
// Compiled at run time behind edge_tensor_product_arguments.h, gpu/warp.cu and the description of one convolution,
// which edge_tensor_product_gpu.cpp writes:
//
//   real            float or double
//   n_features, n_harmonics, n_weights, n_blocks; tabulated, splines    the last two as radial_table_layout.h says
//   inverse_step, inverse_step_rest    1/Å, of the table: rounded, and what the rounding left out
//   Block<B>        a block of node features [n1][channels]; the paths [first_path, last_path) read it
//   Path<P>         sizes and offsets of a path, and its Clebsch-Gordan sums, one line for each coefficient that is
//                   not zero:
//     to_output(y, x, out)        out[m3] += Σ C[m1, m2, m3] y[m2] x[m1]
//     to_features(y, g, gx)       gx[m1]  += Σ C[m1, m2, m3] y[m2] g[m3]
//     to_harmonics(x, g, gy)      gy[m2]  += Σ C[m1, m2, m3] x[m1] g[m3]
//
// A lane of a warp holds one channel, a warp 32 channels of one block: a "slot". Sums over neighbours stay in
// registers: the pass forward has a warp for each centre and slot, the gradient of the features one for each neighbour
// and slot, over edges sorted by neighbour. Each block has kernels of its own, which a block with few sums then runs
// with few registers, and warps are numbered slot by slot: those that run at a time read the same columns of the table.
// What an edge gets (gradients of its harmonics and its distance) is summed
// over the channels of all blocks by one warp. So nothing is stored per edge that is not an input or a result, there is
// no atomic operation, and results do not depend on the order in which warps run.

namespace {

using mlip::gpu::EdgeTensorProductArguments;

/// The radial weights of one edge: stored, or from a table over the distance, as radial_table_layout.h and
/// radial_weights.h have it.
struct Radial {
  const real* row;  ///< weights, or the first row of the interval of the distance
  real s;           ///< position in the interval, 0 to 1
  real sums[6];     ///< of splines: Σ_{k >= j} B_k(s), of which the first is 1
  real slopes[6];   ///< their derivatives with respect to s

  __device__ __forceinline__ Radial(const EdgeTensorProductArguments& a, long long edge) : s(0) {
    const real* const radial = static_cast<const real*>(a.radial);
    if constexpr (tabulated) {
      const real distance = __ldg(radial + edge), position = distance * inverse_step;
      // Clamped before it is an integer. What is not a number falls into the first interval, and `s` stays what it is.
      const real last = static_cast<real>(a.n_intervals - 1);
      const long long interval = position > 0 ? static_cast<long long>(position < last ? position : last) : 0;
      // One rounding only, after the difference: the interval's number can be several hundred.
      s = fma(distance, inverse_step, -static_cast<real>(interval)) + distance * inverse_step_rest;
      const long long first = splines ? interval + (interval < a.kink ? 0 : 5) : 6 * interval;
      const long long before = a.table_of_edge ? a.table_of_edge[edge] * a.n_rows : 0;
      row = static_cast<const real*>(a.table) + (before + first) * n_weights;
      if constexpr (splines) {
        sums[0] = 1;
        slopes[0] = 0;
        evaluate_sum<1>(119, 5, -10, 10, -5, 1);
        evaluate_sum<2>(93, 55, -30, -10, 15, -4);
        evaluate_sum<3>(27, 55, 30, -10, -15, 6);
        evaluate_sum<4>(1, 5, 10, 10, 5, -4);
        evaluate_sum<5>(0, 0, 0, 0, 0, 1);
      }
    } else {
      row = radial + edge * n_weights;
    }
  }

  /// From coefficients of s^0 to s^5, times 120.
  template <int j>
  __device__ __forceinline__ void evaluate_sum(real c0, real c1, real c2, real c3, real c4, real c5) {
    constexpr real unit = real(1) / 120;
    sums[j] = (((((c5 * s + c4) * s + c3) * s + c2) * s + c1) * s + c0) * unit;
    slopes[j] = ((((5 * c5 * s + 4 * c4) * s + 3 * c3) * s + 2 * c2) * s + c1) * unit;
  }

  __device__ __forceinline__ real weight(int k) const {
    if constexpr (!tabulated) return __ldg(row + k);
    real w = __ldg(row + 5 * n_weights + k);
    if constexpr (splines) {
      w *= sums[5];
#pragma unroll
      for (int j = 4; j >= 0; --j) w += (sums[j] - sums[j + 1]) * __ldg(row + j * n_weights + k);
    } else {
      for (int power = 4; power >= 0; --power) w = w * s + __ldg(row + power * n_weights + k);
    }
    return w;
  }

  /// -> weight; `slope` becomes its derivative with respect to s.
  __device__ __forceinline__ real weight(int k, real& slope) const {
    if constexpr (!tabulated) return __ldg(row + k);
    if constexpr (splines) {
      real before = __ldg(row + k), w = before;
      slope = 0;
#pragma unroll
      for (int j = 1; j < 6; ++j) {
        const real next = __ldg(row + j * n_weights + k), difference = next - before;
        w += sums[j] * difference;
        slope += slopes[j] * difference;
        before = next;
      }
      return w;
    }
    slope = __ldg(row + 5 * n_weights + k);
    real w = slope * s + __ldg(row + 4 * n_weights + k);
    for (int power = 3; power >= 0; --power) {
      slope = slope * s + w;
      w = w * s + __ldg(row + power * n_weights + k);
    }
    return w;
  }
};

template <int N>
__device__ __forceinline__ void load(const real* source, int stride, real (&values)[N]) {
#pragma unroll
  for (int m = 0; m < N; ++m) values[m] = __ldg(source + m * stride);
}

/// The components of an output's gradient that path P added to.
template <int P>
__device__ __forceinline__ void load_gradient(const EdgeTensorProductArguments& a, long long centre, int u,
                                              real (&g)[Path<P>::n3]) {
  load(static_cast<const real*>(a.output_gradients[Path<P>::output]) + centre * Path<P>::output_size +
           Path<P>::output_offset + u,
       Path<P>::output_channels, g);
}

// ---- forward -------------------------------------------------------------------------------------------------

template <int P, int last>
__device__ __forceinline__ void add_messages(const Radial& radial, int u, const real* x, const real* y, real* sums) {
  if constexpr (P < last) {
    using This = Path<P>;
    const real weight = radial.weight(This::weights + u);
    real weighted[This::n1];
#pragma unroll
    for (int m1 = 0; m1 < This::n1; ++m1) weighted[m1] = weight * x[m1];
    This::to_output(y + This::harmonics, weighted, sums + This::first_sum);
    add_messages<P + 1, last>(radial, u, x, y, sums);
  }
}

template <int P, int last>
__device__ __forceinline__ void store(const EdgeTensorProductArguments& a, long long centre, int u, const real* sums) {
  if constexpr (P < last) {
    using This = Path<P>;
    real* const out =
        static_cast<real*>(a.outputs[This::output]) + centre * This::output_size + This::output_offset + u;
#pragma unroll
    for (int m3 = 0; m3 < This::n3; ++m3) out[m3 * This::output_channels] = sums[This::first_sum + m3];
    store<P + 1, last>(a, centre, u, sums);
  }
}

template <int B>
__device__ __forceinline__ void convolve(const EdgeTensorProductArguments& a) {
  using This = Block<B>;
  const long long warp = warp_index();
  if (warp >= a.n_owned * This::n_slots) return;
  const long long centre = warp % a.n_owned;
  const int u = static_cast<int>(warp / a.n_owned) * warp_size + lane_index();
  if (u >= This::channels) return;
  real sums[This::n_sums] = {};
  const long long end = a.first_of_centre[centre + 1];
  for (long long position = a.first_of_centre[centre]; position < end; ++position) {
    const long long edge = a.centre_order ? a.centre_order[position] : position;
    real x[This::n1], y[n_harmonics];
    load(static_cast<const real*>(a.features) + a.neighbours[edge] * n_features + This::features + u, This::channels,
         x);
    load(static_cast<const real*>(a.harmonics) + edge * n_harmonics, 1, y);
    add_messages<This::first_path, This::last_path>(Radial(a, edge), u, x, y, sums);
  }
  store<This::first_path, This::last_path>(a, centre, u, sums);
}

// ---- gradient of the features --------------------------------------------------------------------------------

template <int P, int last>
__device__ __forceinline__ void add_to_features(const EdgeTensorProductArguments& a, const Radial& radial,
                                                long long centre, int u, const real* y, real* gx) {
  if constexpr (P < last) {
    using This = Path<P>;
    real g[This::n3];
    load_gradient<P>(a, centre, u, g);
    const real weight = radial.weight(This::weights + u);
#pragma unroll
    for (int m3 = 0; m3 < This::n3; ++m3) g[m3] *= weight;
    This::to_features(y + This::harmonics, g, gx);
    add_to_features<P + 1, last>(a, radial, centre, u, y, gx);
  }
}

template <int B>
__device__ __forceinline__ void gather_gradients(const EdgeTensorProductArguments& a) {
  using This = Block<B>;
  const long long warp = warp_index();
  if (warp >= a.n_nodes * This::n_slots) return;
  const long long node = warp % a.n_nodes;
  const int u = static_cast<int>(warp / a.n_nodes) * warp_size + lane_index();
  if (u >= This::channels) return;
  real gx[This::n1] = {};
  const long long end = a.first_of_neighbour[node + 1];
  for (long long position = a.first_of_neighbour[node]; position < end; ++position) {
    const long long edge = a.neighbour_order[position];
    real y[n_harmonics];
    load(static_cast<const real*>(a.harmonics) + edge * n_harmonics, 1, y);
    add_to_features<This::first_path, This::last_path>(a, Radial(a, edge), a.centres[edge], u, y, gx);
  }
  real* const target = static_cast<real*>(a.features_gradient) + node * n_features + This::features + u;
#pragma unroll
  for (int m1 = 0; m1 < This::n1; ++m1) target[m1 * This::channels] = gx[m1];
}

// ---- gradients of an edge's harmonics and radial weights ------------------------------------------------------

template <int P, int last>
__device__ __forceinline__ void add_to_edge(const EdgeTensorProductArguments& a, const Radial& radial, long long edge,
                                            long long centre, int u, const real* x, const real* y, real* gy,
                                            real& slope_sum) {
  if constexpr (P < last) {
    using This = Path<P>;
    real g[This::n3], per_harmonic[This::n2] = {};
    load_gradient<P>(a, centre, u, g);
    This::to_harmonics(x, g, per_harmonic);
    real slope = 0, weight_gradient = 0;
    const real weight = radial.weight(This::weights + u, slope);
#pragma unroll
    for (int m2 = 0; m2 < This::n2; ++m2) {
      weight_gradient += y[This::harmonics + m2] * per_harmonic[m2];
      gy[This::harmonics + m2] += weight * per_harmonic[m2];
    }
    if constexpr (tabulated)
      slope_sum += slope * weight_gradient;
    else
      static_cast<real*>(a.radial_gradient)[edge * n_weights + This::weights + u] = weight_gradient;
    add_to_edge<P + 1, last>(a, radial, edge, centre, u, x, y, gy, slope_sum);
  }
}

template <int B>
__device__ __forceinline__ void add_blocks_to_edge(const EdgeTensorProductArguments& a, const Radial& radial,
                                                   long long edge, int lane, const real* y, real* gy, real& slope_sum) {
  if constexpr (B < n_blocks) {
    using This = Block<B>;
    const real* const row = static_cast<const real*>(a.features) + a.neighbours[edge] * n_features + This::features;
    for (int u = lane; u < This::channels; u += warp_size) {
      real x[This::n1];
      load(row + u, This::channels, x);
      add_to_edge<This::first_path, This::last_path>(a, radial, edge, a.centres[edge], u, x, y, gy, slope_sum);
    }
    add_blocks_to_edge<B + 1>(a, radial, edge, lane, y, gy, slope_sum);
  }
}

}  // namespace

// The host adds the kernels of each block B: convolution_B calls convolve<B>, convolution_to_features_B calls
// gather_gradients<B>.

extern "C" __global__ void convolution_to_edges(const EdgeTensorProductArguments a) {
  const long long edge = warp_index();
  if (edge >= a.n_edges) return;
  const int lane = lane_index();
  real y[n_harmonics], gy[n_harmonics] = {}, slope_sum = 0;
  load(static_cast<const real*>(a.harmonics) + edge * n_harmonics, 1, y);
  add_blocks_to_edge<0>(a, Radial(a, edge), edge, lane, y, gy, slope_sum);
#pragma unroll
  for (int m = 0; m < n_harmonics; ++m) {
    const real total = sum_of_lanes(gy[m]);
    if (lane == 0) static_cast<real*>(a.harmonics_gradient)[edge * n_harmonics + m] = total;
  }
  if constexpr (tabulated) {
    const real total = sum_of_lanes(slope_sum);
    if (lane == 0) static_cast<real*>(a.radial_gradient)[edge] = total * inverse_step;
  }
}

// GPU kernels of `mlip::symmetric_contraction`; the formula is in symmetric_contraction_kernels.h.
//
// Compiled at run time behind symmetric_contraction_arguments.h, gpu/warp.cu and what symmetric_contraction_gpu.cpp
// writes: `real`, `degree`, `channel_block`. A thread has one channel of one atom, with the components of its features,
// and in the pass back their gradients, in a column of shared memory; the row below the last holds the number one.

namespace {

using mlip::gpu::SymmetricContractionArguments;

/// Where a thread works; `u` is beyond the channels for threads that only fill up a block of channels.
struct Place {
  long long atom;
  int u;
  const real* coefficients;  ///< of the atom's element and the channel, channel_block apart

  __device__ explicit Place(const SymmetricContractionArguments& a) : coefficients(nullptr) {
    const long long thread = thread_index();
    const int row = a.n_blocks * channel_block;
    atom = thread / row;
    u = static_cast<int>(thread % row);
    if (!exists(a)) return;
    const long long type = a.types[atom];
    // An element that does not exist makes the result not a number, which engines notice.
    if (type >= 0 && type < a.n_elements)
      coefficients = static_cast<const real*>(a.coefficients) +
                     (type * a.n_blocks + u / channel_block) * a.n_terms * channel_block + u % channel_block;
  }
  __device__ bool exists(const SymmetricContractionArguments& a) const { return atom < a.n_atoms && u < a.channels; }
  __device__ real coefficient(int term) const {
    return coefficients ? __ldg(coefficients + static_cast<long long>(term) * channel_block) : real(0) / real(0);
  }
};

/// Component k of this thread's column.
__device__ __forceinline__ real& component(real* columns, int k) { return columns[k * blockDim.x + threadIdx.x]; }

__device__ __forceinline__ void load_column(const SymmetricContractionArguments& a, const Place& place, real* columns) {
  const real* const x = static_cast<const real*>(a.features) + place.atom * a.n_components * a.channels + place.u;
  for (int k = 0; k < a.n_components; ++k) component(columns, k) = x[k * a.channels];
  component(columns, a.n_components) = real(1);
}

}  // namespace

extern __shared__ double shared_memory[];

extern "C" __global__ void contraction(const SymmetricContractionArguments a) {
  const Place place(a);
  if (!place.exists(a)) return;
  real* const x = reinterpret_cast<real*>(shared_memory);
  load_column(a, place, x);
  real* const out = static_cast<real*>(a.outputs) + place.atom * a.n_outputs * a.channels + place.u;
  real sum = 0;
  for (int t = 0; t < a.n_terms; ++t) {
    const int* const term = a.terms + t * (1 + degree);
    real product = place.coefficient(t);
    for (int d = 1; d <= degree; ++d) product *= component(x, term[d]);
    sum += product;
    if (t + 1 == a.n_terms || term[1 + degree] != term[0]) {  // the last term of its output
      out[term[0] * a.channels] = sum;
      sum = 0;
    }
  }
}

extern "C" __global__ void contraction_to_features(const SymmetricContractionArguments a) {
  const Place place(a);
  if (!place.exists(a)) return;
  real* const x = reinterpret_cast<real*>(shared_memory);
  real* const gx = x + (a.n_components + 1) * blockDim.x;
  load_column(a, place, x);
  for (int k = 0; k <= a.n_components; ++k) component(gx, k) = 0;
  const real* const gradient =
      static_cast<const real*>(a.output_gradients) + place.atom * a.n_outputs * a.channels + place.u;
  for (int t = 0; t < a.n_terms; ++t) {
    const int* const term = a.terms + t * (1 + degree);
    const real scale = place.coefficient(t) * gradient[term[0] * a.channels];
    for (int d = 1; d <= degree; ++d) {
      real others = scale;
      for (int other = 1; other <= degree; ++other)
        if (other != d) others *= component(x, term[other]);
      component(gx, term[d]) += others;
    }
  }
  real* const target = static_cast<real*>(a.features_gradient) + place.atom * a.n_components * a.channels + place.u;
  for (int k = 0; k < a.n_components; ++k) target[k * a.channels] = component(gx, k);
}

// What kernels for GPUs share: the place of a thread and of its warp. Their texts stand behind this one.

namespace {

constexpr int warp_size = 32;

__device__ __forceinline__ long long thread_index() {
  return static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ __forceinline__ long long warp_index() { return thread_index() / warp_size; }
__device__ __forceinline__ int lane_index() { return static_cast<int>(threadIdx.x % warp_size); }

/// The sum of a value over the lanes, in all of them.
template <typename Value>
__device__ __forceinline__ Value sum_of_lanes(Value value) {
  for (int distance = warp_size / 2; distance > 0; distance /= 2)
    value += __shfl_xor_sync(0xffffffffu, value, distance);
  return value;
}

}  // namespace

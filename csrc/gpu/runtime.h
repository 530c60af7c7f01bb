// Kernels for GPUs, compiled when a model first needs them and launched on torch's stream.
//
// The sources (*.cu beside each operator) are part of the library as text. NVIDIA's run-time compiler, which comes with
// every CUDA build of torch, compiles them for the GPU that is there and for the very model: its components, channels
// and Clebsch-Gordan coefficients are constants of the code. So neither a CUDA toolkit nor a list of architectures is
// needed when this library is built, and one build serves CPU and CUDA. Compiled code is kept in the user's cache
// folder.
//
// Nothing here includes a header of CUDA: the compiler, the driver and torch's current stream are reached through their
// C interfaces, which are looked up in the process.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <memory>
#include <string>

namespace mlip::gpu {

/// A compiled `__global__` function of one parameter, a plain struct.
class Kernel {
 public:
  virtual ~Kernel() = default;
  /// Queue it on torch's current stream of the device that it was compiled for. Returns at once.
  /// @param n_blocks      blocks of the grid; with none, nothing is done
  /// @param n_threads     threads of a block
  /// @param shared_bytes  dynamic shared memory of a block, at most 48 KiB
  /// @param arguments     the parameter, read before the call returns
  /// @throws Error with the driver's words.
  virtual void launch(std::int64_t n_blocks, int n_threads, int shared_bytes, const void* arguments) const = 0;
};

class Runtime {
 public:
  virtual ~Runtime() = default;
  /// The function `name` (extern "C") of `source`, for `device`. Compiled at the first call, then found again.
  /// @throws Error with the compiler's words.
  virtual std::shared_ptr<const Kernel> kernel(const std::string& source, const std::string& name,
                                               at::Device device) = 0;
};

/// The one in use: NVIDIA's compiler and driver, unless `use_runtime` put another in its place.
Runtime& runtime();

/// For tests: null puts NVIDIA's back. The caller keeps ownership.
void use_runtime(Runtime* runtime);

/// Whether kernels can run on tensors of this device. Where they cannot (no compiler in the process, a GPU that is not
/// NVIDIA's), a warning says why, once, and the operators compute the same from torch's own.
bool has_kernels(at::Device device);

/// "typedef float real;": the line that sources name the model's type by.
/// @throws c10::Error for types that the kernels do not have.
std::string real_type(at::ScalarType type);

/// A value of that type in a source: in hexadecimal, which is exact.
std::string real_number(double value, at::ScalarType type);

/// The line of a struct in a source that gives a whole number a name.
std::string constant(const char* name, std::int64_t value);

/// Of an NVIDIA GPU, such as "sm_90". @throws Error where there is no driver.
std::string architecture(at::Device device);

/// Whether a GPU of one architecture runs machine code for another: that of its generation, if it is not newer than the
/// GPU. sm_86 runs code for sm_80; sm_90 does not, and sm_80 does not run that for sm_86.
bool runs_code_for(const std::string& compiled, const std::string& architecture);

/// Machine code ("cubin") of `source` for an architecture such as "sm_90"; for one that the compiler does not know yet,
/// what such a GPU runs too, which may be assembly for its driver ("PTX").
/// @throws Error when there is no compiler, and with its words when it refuses.
std::string compile(const std::string& source, const std::string& architecture);

/// The same from the user's cache folder, or kept there for the next time. A file that is damaged is deleted and its
/// code compiled again; a folder that cannot be read or written costs time, not a run.
/// @throws Error as compile() does.
std::string compiled_or_cached(const std::string& source, const std::string& architecture);

/// The same without a look into the folder: what is kept there is replaced.
std::string compiled_anew(const std::string& source, const std::string& architecture);

}  // namespace mlip::gpu

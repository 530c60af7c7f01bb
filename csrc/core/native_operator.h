// An operator with its constants, as a model's program (model/program.h) calls it: without torch's dispatcher, and with
// a pass back that is written down instead of recorded by autograd.
//
// An operator's own file registers it under the name that TorchScript knows it by:
//
//   const RegisterNative known("mlip::gate", make_native);
#pragma once

#include <ATen/core/ivalue.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace mlip {

class NativeOperator {
 public:
  using Tensors = std::vector<at::Tensor>;

  /// What a pass forward leaves for the pass back.
  struct Kept {
    Tensors tensors;
    std::vector<std::int64_t> sizes;
  };

  virtual ~NativeOperator() = default;

  /// @param inputs the tensors that no constant gives, in the order of the operator's arguments, lists unrolled
  /// @param count the number of nodes that no constant gives, of an operator with such an argument
  /// @param kept null where no pass back follows
  /// @return as many as n_outputs() says
  virtual Tensors forward(Tensors inputs, std::int64_t count, Kept* kept) const = 0;

  /// @param gradients of the outputs, all defined
  /// @param sums [number of inputs]: gradients so far, undefined for none; those of `wanted` inputs are added to
  virtual void backward(const Tensors& gradients, const Kept& kept, const std::vector<bool>& wanted,
                        Tensors& sums) const = 0;

  virtual std::size_t n_outputs() const = 0;
};

/// @param arguments as the operator's schema has them; None for those that each call gives
/// @param device of the tensors
/// @return null where an argument has to be a constant and is not, or where the device has no kernels for the operator
using NativeFactory = std::unique_ptr<NativeOperator> (*)(const std::vector<c10::IValue>& arguments, at::Device device);

class RegisterNative {
 public:
  RegisterNative(const char* name, NativeFactory factory);
};

/// @return null for an operator that has no native form
NativeFactory find_native(const std::string& name);

/// Whether this is the one reference to all of a tensor's memory, which may therefore be written to.
bool is_own(const at::Tensor& tensor);

/// sum += term, where an undefined tensor is zero.
void add_gradient(at::Tensor& sum, at::Tensor term);

}  // namespace mlip

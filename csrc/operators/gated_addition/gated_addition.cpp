// The operator `mlip::gated_addition`: a gated layer of some rows, added to rows of another table.
//
//   gated_addition(table, places, inputs, matrix, biases) -> sums
//
//   v, g = inputs[k] matrix + biases                    values' channels, then gates'
//   sums = table, with silu(v) sigmoid(g) added to row places[k], for each k
//
//   table      [n_rows, channels]
//   places     int64 [n] in [0, n_rows), no two alike, which the CPU checks
//   inputs     [n, n_inputs]
//   matrix     [n_inputs, 2 channels] and biases [2 channels]: constants without a gradient
//   sums       [n_rows, channels]
//
// The CPU takes 128 inputs at a time through product and gate, stores nothing between them, and makes both again in the
// pass back. Other devices compute the same from torch's own operators, which is also the reference that the tests use:
// `mlip::gated_addition_reference`.
#include <ATen/Parallel.h>
#include <torch/script.h>

#include <algorithm>
#include <vector>

#include "operators/autograd.h"
#include "operators/edge_blocks.h"
#include "operators/gated_addition/gated_addition_kernels.h"
#include "operators/instruction_sets.h"
#include "operators/packed_matrix.h"

namespace mlip {
namespace {

using at::Tensor;

void check(const Tensor& table, const Tensor& places, const Tensor& inputs, const Tensor& matrix,
           const Tensor& biases) {
  TORCH_CHECK(table.dim() == 2 && inputs.dim() == 2,
              "gated_addition: expected a table and inputs of two dimensions, found ", table.sizes(), " and ",
              inputs.sizes());
  const auto expect = [&](const char* name, const Tensor& tensor, at::IntArrayRef sizes, at::ScalarType type) {
    TORCH_CHECK(tensor.sizes() == sizes && tensor.scalar_type() == type, "gated_addition: expected ", name, " ", sizes,
                " of ", type, ", found ", tensor.sizes(), " of ", tensor.scalar_type());
  };
  const std::int64_t n = inputs.size(0), n_inputs = inputs.size(1), n_columns = 2 * table.size(1);
  expect("places", places, {n}, at::kLong);
  expect("inputs", inputs, {n, n_inputs}, table.scalar_type());
  expect("a matrix", matrix, {n_inputs, n_columns}, table.scalar_type());
  expect("biases", biases, {n_columns}, table.scalar_type());
}

// ---- reference -----------------------------------------------------------------------------------------------

/// The same from torch's operators: any device, differentiable, and all rows at once.
Tensor reference(const Tensor& table, const Tensor& places, const Tensor& inputs, const Tensor& matrix,
                 const Tensor& biases) {
  check(table, places, inputs, matrix, biases);
  const std::vector<Tensor> halves = at::addmm(biases, inputs, matrix).chunk(2, 1);
  return table.index_add(0, places, at::silu(halves[0]) * at::sigmoid(halves[1]));
}

// ---- CPU -----------------------------------------------------------------------------------------------------

/// Contiguous inputs, and the matrix packed.
template <typename T>
struct CpuCall {
  Tensor places, inputs, biases;
  std::int64_t n_channels;
  PackedMatrix<T> matrix;
  const GatedAdditionKernels<T>& kernels = *instruction_set().kernels<T>().gated_addition;

  CpuCall(const Tensor& table, const Tensor& places_, const Tensor& inputs_, const Tensor& matrix_,
          const Tensor& biases_)
      : places(places_.contiguous()),
        inputs(inputs_.contiguous()),
        biases(biases_.contiguous()),
        n_channels(table.size(1)),
        matrix(matrix_) {
    const std::int64_t n_rows = table.size(0);
    const std::int64_t* const place = places.const_data_ptr<std::int64_t>();
    std::vector<bool> taken(n_rows);
    for (std::int64_t k = 0; k < places.numel(); ++k) {
      TORCH_CHECK_INDEX(place[k] >= 0 && place[k] < n_rows, "gated_addition: place ", place[k], " is outside [0, ",
                        n_rows, ")");
      TORCH_CHECK_INDEX(!taken[place[k]], "gated_addition: two inputs have place ", place[k]);
      taken[place[k]] = true;
    }
  }

  const T* input(std::int64_t k) const { return inputs.template const_data_ptr<T>() + k * inputs.size(1); }

  /// body(the first of some inputs, their rows of the table, their values and gates), by several threads.
  template <typename Body>
  void for_blocks(Body&& body) const {
    at::parallel_for(0, inputs.size(0), block_size, [&](std::int64_t begin, std::int64_t end) {
      const at::AutoDispatchBelowADInplaceOrView below_autograd;  // of this thread
      const Tensor values_and_gates = at::empty({block_size, 2 * n_channels}, inputs.options());
      T* const data = values_and_gates.template data_ptr<T>();
      for (; begin < end; begin += block_size) {
        const GatedRows<T> rows{std::min(block_size, end - begin), n_channels,
                                places.const_data_ptr<std::int64_t>() + begin, biases.template const_data_ptr<T>()};
        matrix.multiply(rows.n, input(begin), data);
        body(begin, rows, data);
      }
    });
  }
};

Tensor forward_cpu(const Tensor& table, const Tensor& places, const Tensor& inputs, const Tensor& matrix,
                   const Tensor& biases) {
  check(table, places, inputs, matrix, biases);
  const Tensor sums = table.clone(at::MemoryFormat::Contiguous);
  AT_DISPATCH_FLOATING_TYPES(table.scalar_type(), "gated_addition", [&] {
    const CpuCall<scalar_t> call(table, places, inputs, matrix, biases);
    scalar_t* const to = sums.data_ptr<scalar_t>();
    call.for_blocks([&](std::int64_t, const GatedRows<scalar_t>& rows, const scalar_t* values_and_gates) {
      call.kernels.add(rows, values_and_gates, to);
    });
  });
  return sums;
}

/// -> gradient of inputs; that of the table is the gradient itself
Tensor backward_cpu(const Tensor& gradient, const Tensor& places, const Tensor& inputs, const Tensor& matrix,
                    const Tensor& biases) {
  check(gradient, places, inputs, matrix, biases);
  const Tensor of_sums = gradient.contiguous(), of_inputs = at::empty(inputs.sizes(), inputs.options());
  AT_DISPATCH_FLOATING_TYPES(gradient.scalar_type(), "gated_addition_backward", [&] {
    const CpuCall<scalar_t> call(gradient, places, inputs, matrix, biases);
    const PackedMatrix<scalar_t> transpose(matrix.t());
    const scalar_t* const from = of_sums.const_data_ptr<scalar_t>();
    scalar_t* const to = of_inputs.data_ptr<scalar_t>();
    call.for_blocks([&](std::int64_t first, const GatedRows<scalar_t>& rows, scalar_t* values_and_gates) {
      call.kernels.add_backward(rows, from, values_and_gates);
      transpose.multiply(rows.n, values_and_gates, to + first * inputs.size(1));
    });
  });
  return of_inputs;
}

// ---- autograd ------------------------------------------------------------------------------------------------

Tensor forward_autograd(const Tensor& table, const Tensor& places, const Tensor& inputs, const Tensor& matrix,
                        const Tensor& biases) {
  if (!table.is_cpu()) return reference(table, places, inputs, matrix, biases);
  const auto forward = [&]() -> Recorded {
    static const auto op =
        c10::Dispatcher::singleton().findSchemaOrThrow("mlip::gated_addition", "").typed<decltype(forward_cpu)>();
    return {{op.call(table, places, inputs, matrix, biases)}, {places, inputs}};
  };
  return record({table, inputs}, forward,
                [matrix, biases](const auto& gradients, const auto& kept, const auto&) -> std::vector<Tensor> {
                  const LastDerivative only("gated_addition");
                  static const auto op = c10::Dispatcher::singleton()
                                             .findSchemaOrThrow("mlip::gated_addition_backward", "")
                                             .typed<decltype(backward_cpu)>();
                  return {gradients[0], op.call(gradients[0], kept[0], kept[1], matrix, biases)};
                })[0];
}

}  // namespace
}  // namespace mlip

// `mlip` itself is opened in ghost_gather.cpp.
TORCH_LIBRARY_FRAGMENT(mlip, library) {
  library.def("gated_addition(Tensor table, Tensor places, Tensor inputs, Tensor matrix, Tensor biases) -> Tensor");
  library.def(
      "gated_addition_backward(Tensor gradient, Tensor places, Tensor inputs, Tensor matrix, Tensor biases) -> Tensor");
  library.def(
      "gated_addition_reference(Tensor table, Tensor places, Tensor inputs, Tensor matrix, Tensor biases) -> Tensor",
      mlip::reference);
}

TORCH_LIBRARY_IMPL(mlip, CPU, library) {
  library.impl("gated_addition", mlip::forward_cpu);
  library.impl("gated_addition_backward", mlip::backward_cpu);
}

TORCH_LIBRARY_IMPL(mlip, CompositeExplicitAutograd, library) { library.impl("gated_addition", mlip::reference); }

TORCH_LIBRARY_IMPL(mlip, Autograd, library) { library.impl("gated_addition", mlip::forward_autograd); }

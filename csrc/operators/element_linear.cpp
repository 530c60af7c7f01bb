// The operator `mlip::element_linear`: a linear layer for each element.
//
//   element_linear(x [n_atoms, 2l+1, channels in], types int64 [n_atoms],
//                  matrices [n_elements, channels in, channels out]) -> [n_atoms, 2l+1, channels out]
//
// Atoms are sorted by element, so that each element's are one matrix product. How many there are of each is read from
// `types`, which a compiled graph cannot do: hence an operator. Matrices are constants, without a gradient.
//
// On a GPU the host waits to read that, once for as long as `types` stays as it is (element_order.h).
#include <torch/script.h>

#include "operators/autograd.h"
#include "operators/element_order.h"

namespace mlip {
namespace {

using at::Tensor;

Tensor element_linear(const Tensor& x, const Tensor& types, const Tensor& matrices) {
  TORCH_CHECK(x.dim() == 3 && matrices.dim() == 3 && x.size(2) == matrices.size(1) && types.size(0) == x.size(0),
              "element_linear: expected features [n_atoms, components, channels], a type of each atom and matrices "
              "[n_elements, channels, channels out], found ",
              x.sizes(), ", ", types.sizes(), " and ", matrices.sizes());
  const std::int64_t n_elements = matrices.size(0), n_atoms = x.size(0);
  const auto atoms = ElementOrder::of(types, n_elements);
  if (!atoms->order.defined()) return at::matmul(x, matrices[atoms->only()]);
  const Tensor sorted = x.index_select(0, atoms->order);
  std::vector<Tensor> products;
  std::int64_t start = 0;
  for (std::int64_t e = 0; e < n_elements; start += atoms->count[e++])
    if (atoms->count[e] > 0) products.push_back(at::matmul(sorted.narrow(0, start, atoms->count[e]), matrices[e]));
  Tensor result = at::empty({n_atoms, x.size(1), matrices.size(2)}, x.options());
  return result.index_copy_(0, atoms->order, at::cat(products));
}

Tensor call_element_linear(const Tensor& x, const Tensor& types, const Tensor& matrices) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("mlip::element_linear", "").typed<decltype(element_linear)>();
  return op.call(x, types, matrices);
}

Tensor element_linear_autograd(const Tensor& x, const Tensor& types, const Tensor& matrices) {
  const auto forward = [&]() -> Recorded { return {{call_element_linear(x, types, matrices)}, {types, matrices}}; };
  return record({x}, forward, [](const auto& gradients, const auto& kept, const auto&) -> std::vector<Tensor> {
    return {call_element_linear(gradients[0], kept[0], kept[1].transpose(1, 2))};
  })[0];
}

}  // namespace
}  // namespace mlip

// `mlip` itself is opened in ghost_gather.cpp.
TORCH_LIBRARY_FRAGMENT(mlip, library) {
  library.def("element_linear(Tensor x, Tensor types, Tensor matrices) -> Tensor");
}

TORCH_LIBRARY_IMPL(mlip, CompositeExplicitAutograd, library) { library.impl("element_linear", mlip::element_linear); }

TORCH_LIBRARY_IMPL(mlip, Autograd, library) { library.impl("element_linear", mlip::element_linear_autograd); }

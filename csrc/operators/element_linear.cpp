// The operator `mlip::element_linear`: a linear layer for each element.
//
//   element_linear(x [n_atoms, 2l+1, channels in], types int64 [n_atoms],
//                  matrices [n_elements, channels in, channels out]) -> [n_atoms, 2l+1, channels out]
//
// Atoms are sorted by element, so that each element's are one matrix product. How many there are of each is read from
// `types`, which a compiled graph cannot do: hence an operator. Matrices are constants, without a gradient.
//
// On a GPU the host waits to read that. The order is remembered for as long as `types` stays as it is, which for a
// step's types (model/device_step.cpp) is from one search for neighbours to the next.
#include <torch/script.h>

#include <algorithm>
#include <list>
#include <memory>
#include <mutex>

namespace mlip {
namespace {

using at::Tensor;

/// Atoms in the order of their elements.
struct ElementOrder {
  std::vector<std::int64_t> count;  ///< atoms of each element
  Tensor order;                     ///< int64 [n_atoms]; undefined where all are of one element

  ElementOrder(const Tensor& types, std::int64_t n_elements) {
    const Tensor counts = at::bincount(types, {}, n_elements).cpu();
    TORCH_CHECK(counts.size(0) == n_elements, "element_linear: type ", counts.size(0) - 1, " is not one of ",
                n_elements, " elements");
    count.assign(counts.const_data_ptr<std::int64_t>(), counts.const_data_ptr<std::int64_t>() + n_elements);
    if (std::count(count.begin(), count.end(), types.size(0)) == 0)
      order = at::argsort(types, /*stable=*/true, /*dim=*/0, /*descending=*/false);
  }
};

/// Orders of the types that were last used, known by their memory while it is theirs.
class ElementOrders {
 public:
  std::shared_ptr<const ElementOrder> find(const Tensor& types, std::int64_t n_elements) {
    // What inference mode makes has no count of changes.
    if (types.is_inference() || types.numel() == 0) return std::make_shared<ElementOrder>(types, n_elements);
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const Known& known : known_)
      if (known.is(types, n_elements)) return known.order;
    known_.push_front({types.storage().getWeakStorageImpl(), types.const_data_ptr(), types.sizes().vec(),
                       types.strides().vec(), types._version(), n_elements,
                       std::make_shared<ElementOrder>(types, n_elements)});
    if (known_.size() > most) known_.pop_back();
    return known_.front().order;
  }

  /// Never destroyed: at the end of the process the memory of a GPU may be gone before it.
  static ElementOrders& instance() {
    static auto* const only = new ElementOrders;
    return *only;
  }

 private:
  static constexpr std::size_t most = 4;  // models of a committee, and devices

  struct Known {
    c10::weak_intrusive_ptr<c10::StorageImpl> storage;
    const void* data;
    std::vector<std::int64_t> sizes, strides;
    std::int64_t version, n_elements;
    std::shared_ptr<const ElementOrder> order;

    bool is(const Tensor& types, std::int64_t n) const {
      return !storage.expired() && storage._unsafe_get_target() == types.storage().unsafeGetStorageImpl() &&
             data == types.const_data_ptr() && types.sizes() == sizes && types.strides() == strides &&
             version == static_cast<std::int64_t>(types._version()) && n_elements == n;
    }
  };
  std::mutex mutex_;
  std::list<Known> known_;
};

Tensor element_linear(const Tensor& x, const Tensor& types, const Tensor& matrices) {
  TORCH_CHECK(x.dim() == 3 && matrices.dim() == 3 && x.size(2) == matrices.size(1) && types.size(0) == x.size(0),
              "element_linear: expected features [n_atoms, components, channels], a type of each atom and matrices "
              "[n_elements, channels, channels out], found ",
              x.sizes(), ", ", types.sizes(), " and ", matrices.sizes());
  const std::int64_t n_elements = matrices.size(0), n_atoms = x.size(0);
  const auto atoms = ElementOrders::instance().find(types, n_elements);
  for (std::int64_t e = 0; e < n_elements; ++e)
    if (atoms->count[e] == n_atoms) return at::matmul(x, matrices[e]);  // one element, or no atoms
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

class ElementLinear : public torch::autograd::Function<ElementLinear> {
 public:
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& x, const Tensor& types,
                        const Tensor& matrices) {
    context->save_for_backward({types, matrices});
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    return call_element_linear(x, types, matrices);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const auto saved = context->get_saved_variables();
    return {call_element_linear(gradients[0], saved[0], saved[1].transpose(1, 2)), Tensor(), Tensor()};
  }
};

Tensor element_linear_autograd(const Tensor& x, const Tensor& types, const Tensor& matrices) {
  return ElementLinear::apply(x, types, matrices);
}

}  // namespace
}  // namespace mlip

// `mlip` itself is opened in ghost_gather.cpp.
TORCH_LIBRARY_FRAGMENT(mlip, library) {
  library.def("element_linear(Tensor x, Tensor types, Tensor matrices) -> Tensor");
}

TORCH_LIBRARY_IMPL(mlip, CompositeExplicitAutograd, library) { library.impl("element_linear", mlip::element_linear); }

TORCH_LIBRARY_IMPL(mlip, Autograd, library) { library.impl("element_linear", mlip::element_linear_autograd); }

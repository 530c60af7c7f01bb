#include "operators/element_order.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <list>
#include <mutex>

namespace mlip {
namespace {

using at::Tensor;

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

}  // namespace

ElementOrder::ElementOrder(const Tensor& types, std::int64_t n_elements) {
  const Tensor counts = at::bincount(types, {}, n_elements).cpu();
  TORCH_CHECK(counts.size(0) == n_elements, "element_linear: type ", counts.size(0) - 1, " is not one of ", n_elements,
              " elements");
  count.assign(counts.const_data_ptr<std::int64_t>(), counts.const_data_ptr<std::int64_t>() + n_elements);
  if (std::count(count.begin(), count.end(), types.size(0)) == 0)
    order = at::argsort(types, /*stable=*/true, /*dim=*/0, /*descending=*/false);
}

std::shared_ptr<const ElementOrder> ElementOrder::of(const Tensor& types, std::int64_t n_elements) {
  return ElementOrders::instance().find(types, n_elements);
}

std::int64_t ElementOrder::only() const { return std::max_element(count.begin(), count.end()) - count.begin(); }

}  // namespace mlip

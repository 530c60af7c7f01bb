#include "operators/equivariant_linear/products_of_torch.h"

#include <ATen/ATen.h>
#include <ATen/ops/as_strided_native.h>

#include <cstdint>
#include <memory>
#include <utility>

#include "operators/element_order.h"

namespace mlip {
namespace {

using at::Tensor;
using Plan = EquivariantLinearPlan;

/// Part of a tensor's memory. Not by torch's dispatcher, which takes as long as the launch of a product.
Tensor part(const Tensor& whole, at::IntArrayRef sizes, at::IntArrayRef strides, std::int64_t first = 0) {
  return at::native::as_strided_tensorimpl(whole, sizes, strides, whole.storage_offset() + first);
}

/// target (+)= source matrix, in one launch.
/// @param source, target [n_atoms, components, channels], whose channels are neighbours
/// @param matrix [channels of the source, channels of the target], dense
void multiply(const Tensor& source, const Tensor& target, const Tensor& matrix, bool add) {
  const std::int64_t n_atoms = source.size(0), components = source.size(1);
  if (components == 1 || (source.is_contiguous() && target.is_contiguous())) {
    const auto rows = [&](const Tensor& block) {
      return part(block, {n_atoms * components, block.size(2)}, {block.stride(components == 1 ? 0 : 1), 1});
    };
    Tensor result = rows(target);
    if (add)
      result.addmm_(rows(source), matrix);
    else
      at::mm_out(result, rows(source), matrix);
    return;
  }
  const auto by_component = [&](const Tensor& block) {
    return part(block, {components, n_atoms, block.size(2)}, {block.stride(1), block.stride(0), 1});
  };
  const Tensor same = part(matrix, {components, matrix.size(0), matrix.size(1)}, {0, matrix.size(1), 1});
  Tensor result = by_component(target);
  if (add)
    result.baddbmm_(by_component(source), same);
  else
    at::bmm_out(result, by_component(source), same);
}

/// Blocks [n_atoms, components, channels] of an operator's results, or of their gradients.
std::vector<Tensor> blocks_of(const Plan& plan, const std::vector<Tensor>& tensors, bool as_rows) {
  if (!as_rows) return tensors;
  std::vector<Tensor> blocks;
  for (const Plan::Block& block : plan.blocks)
    blocks.push_back(part(tensors[0], {tensors[0].size(0), block.components, block.channels},
                          {plan.width, block.channels, 1}, block.first));
  return blocks;
}

/// One pass, forward or back: every product from its block of `from` to its block of `to`.
class Pass {
 public:
  /// @param from, to  inputs and blocks, or blocks and inputs on the way back; undefined where nobody wants it
  /// @param written  whether a block of `to` holds something that products are added to
  Pass(const Plan& plan, bool back, const Tensor& types, const Tensor& matrices, const Tensor& element_matrices,
       std::vector<Tensor> from, std::vector<Tensor> to, std::vector<bool> written)
      : plan_(plan),
        back_(back),
        matrices_(matrices.contiguous()),
        element_matrices_(element_matrices.contiguous()),
        from_(std::move(from)),
        to_(std::move(to)),
        written_(std::move(written)) {
    if (!plan.of_elements()) return;
    TORCH_CHECK(types.size(0) == from_[0].size(0), "equivariant_linear: ", types.size(0), " types for ",
                from_[0].size(0), " atoms");
    elements_ = ElementOrder::of(types, element_matrices_.size(0));
  }

  void run() {
    std::vector<Tensor> by_element(from_.size()), sums(to_.size());  // in the order of the elements
    for (const Plan::Product& product : plan_.products) {
      const auto source = static_cast<std::size_t>(back_ ? product.block : product.input);
      const auto target = static_cast<std::size_t>(back_ ? product.input : product.block);
      if (!to_[target].defined()) continue;
      if (!product.of_element || !elements_->order.defined()) {
        multiply(from_[source], to_[target], matrix(product, product.of_element ? elements_->only() : 0),
                 written_[target]);
        written_[target] = true;
        continue;
      }
      if (!by_element[source].defined()) by_element[source] = from_[source].index_select(0, elements_->order);
      const bool add = sums[target].defined();
      if (!add) sums[target] = at::empty(to_[target].sizes(), to_[target].options());
      multiply_by_element(product, by_element[source], sums[target], add);
    }
    for (std::size_t k = 0; k < to_.size(); ++k) {
      if (!to_[k].defined()) continue;
      if (sums[k].defined() && written_[k])
        to_[k].index_add_(0, elements_->order, sums[k]);  // each atom once: no two additions meet
      else if (sums[k].defined())
        to_[k].index_copy_(0, elements_->order, sums[k]);
      else if (!written_[k])
        to_[k].zero_();
    }
  }

 private:
  /// @param source, target with the atoms of each element behind those of the one before
  void multiply_by_element(const Plan::Product& product, const Tensor& source, const Tensor& target, bool add) const {
    std::int64_t first = 0;
    for (std::size_t e = 0; e < elements_->count.size(); ++e) {
      const std::int64_t n = elements_->count[e];
      const auto atoms = [&](const Tensor& all) {
        return part(all, {n, all.size(1), all.size(2)}, all.strides(), first * all.stride(0));
      };
      if (n > 0) multiply(atoms(source), atoms(target), matrix(product, static_cast<std::int64_t>(e)), add);
      first += n;
    }
  }

  /// @param element  of a product whose matrix depends on it
  Tensor matrix(const Plan::Product& product, std::int64_t element) const {
    const Tensor& all = product.of_element ? element_matrices_ : matrices_;
    std::int64_t rows = product.channels_in, columns = plan_.blocks[product.block].channels;
    if (back_) std::swap(rows, columns);
    return part(all, {rows, columns}, {columns, 1}, (2 * element + back_) * all.size(-1) + product.first);
  }

  const Plan& plan_;
  bool back_;
  Tensor matrices_, element_matrices_;
  std::shared_ptr<const ElementOrder> elements_;
  std::vector<Tensor> from_, to_;
  std::vector<bool> written_;
};

}  // namespace

void forward_of_torch(const Plan& plan, const std::vector<Tensor>& inputs, const Tensor& types, const Tensor& matrices,
                      const Tensor& element_matrices, const Tensor& bias, bool as_rows,
                      const std::vector<Tensor>& outputs) {
  const std::int64_t n_atoms = inputs[0].size(0);
  std::vector<Tensor> blocks = blocks_of(plan, outputs, as_rows);
  const bool biased = bias.size(0) > 0;
  if (biased) {
    const Tensor of_atoms = bias.size(0) == 1 ? bias.expand({n_atoms, plan.width}) : bias.index_select(0, types);
    for (std::size_t b = 0; b < blocks.size(); ++b)
      blocks[b].copy_(part(of_atoms, blocks[b].sizes(),
                           {of_atoms.stride(0), plan.blocks[b].channels * of_atoms.stride(1), of_atoms.stride(1)},
                           plan.blocks[b].first * of_atoms.stride(1)));
  }
  const std::vector<bool> written(blocks.size(), biased);
  Pass(plan, false, types, matrices, element_matrices, inputs, std::move(blocks), written).run();
}

void backward_of_torch(const Plan& plan, const std::vector<Tensor>& gradients, const Tensor& types,
                       const Tensor& matrices, const Tensor& element_matrices, bool as_rows,
                       const std::vector<Tensor>& sums, const std::vector<bool>& written) {
  Pass(plan, true, types, matrices, element_matrices, blocks_of(plan, gradients, as_rows), sums, written).run();
}

}  // namespace mlip

#include "model/device_edges.h"

#include <ATen/ATen.h>

#include "gpu/runtime.h"

namespace mlip {
namespace {

class TorchEdges : public DeviceEdges {
 public:
  explicit TorchEdges(at::Device device)
      : device_(device),
        rows_(upload(virial_rows.data(), {9}, device)),
        columns_(upload(virial_columns.data(), {9}, device)) {}

  void set_candidates(const CandidateEdges& candidates, std::int64_t n_nodes) override {
    n_nodes_ = n_nodes;
    node_of_ = upload(candidates.node_of, device_).to(at::kLong);
    neighbours_ = upload(candidates.neighbours, device_);
    const at::Tensor first = upload(candidates.first, device_);
    const auto n_centres = static_cast<std::int64_t>(candidates.centres.size());
    centres_ = upload(candidates.centres, device_)
                   .repeat_interleave(first.narrow(0, 1, n_centres) - first.narrow(0, 0, n_centres), std::nullopt,
                                      candidates.n_candidates());
    images_ = candidates.images.empty() ? at::Tensor() : upload(candidates.images, device_);
    set_shifts(candidates);
  }

  void set_shifts(const CandidateEdges& candidates) override { shifts_ = upload_shifts(candidates, device_); }

  EdgesOfStep find(const at::Tensor& x, double length_in_angstrom, double cutoff) override {
    // In place: with the skin there are two to three candidates for every edge.
    at::Tensor vectors = x.index_select(0, neighbours_).sub_(x.index_select(0, centres_)).mul_(length_in_angstrom);
    if (images_.defined()) vectors.add_(shifts_.index_select(0, images_));
    const at::Tensor kept = vectors.square().sum(1).lt(cutoff * cutoff).nonzero().select(1, 0);
    return {at::stack({node_of_.index_select(0, centres_.index_select(0, kept)),
                       node_of_.index_select(0, neighbours_.index_select(0, kept))}),
            vectors.index_select(0, kept)};
  }

  // As the loops of graph.cpp.
  SumsOverEdges sums(const EdgesOfStep& edges, const at::Tensor& gradients, const StepRequest& wanted) override {
    const at::Tensor g = gradients.to(at::kDouble);
    const at::Tensor &r = edges.vectors, i = edges.index[0], j = edges.index[1];
    SumsOverEdges found;
    if (wanted.forces) found.forces = of_nodes(3).index_add_(0, i, g).index_add_(0, j, g, -1);
    if (wanted.virial) {
      // No matrix product: one with a result of 3 x 3 is a single tile, and one processor of a GPU would add it all up.
      std::vector<at::Tensor> rows;
      for (int a = 0; a < 3; ++a) rows.push_back(g.mul(r.select(1, a).unsqueeze(1)).sum(0));
      found.virial = at::stack(rows).neg_();
    }
    if (wanted.atom_virials) {
      const at::Tensor a = rows_.narrow(0, 0, 6), b = columns_.narrow(0, 0, 6);
      const at::Tensor half = r.index_select(1, a)
                                  .mul_(g.index_select(1, b))
                                  .addcmul_(r.index_select(1, b), g.index_select(1, a))
                                  .mul_(-0.25);
      found.atom_virials = of_nodes(6).index_add_(0, i, half).index_add_(0, j, half);
    }
    if (wanted.centroid_virials)
      found.centroid_virials =
          of_nodes(9).index_add_(0, j, r.index_select(1, rows_).mul_(g.index_select(1, columns_)), -1);
    return found;
  }

  double bytes() const override {
    double total = 0.0;
    for (const at::Tensor& tensor : {node_of_, centres_, neighbours_, images_, shifts_})
      if (tensor.defined()) total += static_cast<double>(tensor.nbytes());
    return total;
  }

 private:
  at::Tensor of_nodes(std::int64_t width) const {
    return at::zeros({n_nodes_, width}, at::TensorOptions(device_).dtype(at::kDouble));
  }

  at::Device device_;
  std::int64_t n_nodes_ = 0;
  at::Tensor rows_;        // int32 [9] of the virial's components
  at::Tensor columns_;     // int32 [9]
  at::Tensor node_of_;     // int64 [n_atoms]
  at::Tensor centres_;     // int32 [n_candidates] engine index
  at::Tensor neighbours_;  // int32 [n_candidates] engine index
  at::Tensor images_;      // int32 [n_candidates] row of shifts_; undefined without images
  at::Tensor shifts_;      // float64 [n_images, 3] Å
};

}  // namespace

template <typename Value>
at::Tensor upload(const Value* values, at::IntArrayRef sizes, at::Device device) {
  constexpr at::ScalarType type = c10::CppTypeToScalarType<Value>::value;
  return at::from_blob(const_cast<Value*>(values), sizes, type).to(device, type, /*non_blocking=*/false, /*copy=*/true);
}
template at::Tensor upload(const int*, at::IntArrayRef, at::Device);
template at::Tensor upload(const std::int64_t*, at::IntArrayRef, at::Device);
template at::Tensor upload(const double*, at::IntArrayRef, at::Device);

at::Tensor upload_shifts(const CandidateEdges& candidates, at::Device device) {
  if (candidates.images.empty()) return {};
  return upload(candidates.shifts.front().data(), {static_cast<std::int64_t>(candidates.shifts.size()), 3}, device);
}

std::unique_ptr<DeviceEdges> make_device_edges(at::Device device) {
  if (gpu::has_kernels(device)) return make_kernel_edges(device);
  return std::make_unique<TorchEdges>(device);
}

}  // namespace mlip

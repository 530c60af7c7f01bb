// The operator `mlip::so2_convolution`: the messages of eSEN and UMA, made in the frames of edges, and their sum over
// the edges of each centre.
//
//   so2_convolution(nodes, rotations, envelope, basis, node_types, edge_index, n_owned, radial, first, second, epsilon,
//                   keep) -> result [n_owned, (l_max+1)², channels], kept
//
//   result[i] = Σ_{edges e of i} envelope[e] D_eᵀ second(gate(first(scalars_e · D_e [x_j | x_i])))
//
//   nodes       x, [n_nodes, (l_max+1)², channels]
//   rotations   D, [n_edges, n_rows, (l_max+1)²], into the frame of each edge. Rows are sorted by m: those of 0, then
//   for
//               each m up to m_max those of m and those of -m, each by l. Entries between different l are not read.
//   envelope    [n_edges]
//   basis       [n_edges, n_basis], from which the radial network makes the scalars
//   node_types  int64 [n_nodes]
//   edge_index  int64 [2, n_edges]: centres i in [0, n_owned), neighbours j in [0, n_nodes)
//   radial      the network: matrix [width, n_basis], tables of the elements of centres and of neighbours [n_elements,
//               width], then twice weight [width] and bias [width] of a normalisation, matrix and bias of a linear map,
//               which is made of silu of what is normalised. The last one gives 2 channels for each pair of l and m >=
//               0.
//   first       the first convolution: bias, the matrix of m = 0, and for each m > 0 [3, outputs, inputs]: U, V - U and
//               U + V, where U and V mix the components of m and -m as the real and imaginary part of U + iV mix those
//               of complex numbers. Inputs have 2 channels for each l. Outputs of m = 0 are the gates of l = 1 to
//               l_max, then `hidden` values for each l; those of other m are hidden values for each l.
//   second      likewise: from hidden values to channels, without gates
//   epsilon     of the normalisations
//   keep        whether `kept` is what the first convolution gives, [n_edges, (l_max + n_rows) hidden], for the pass
//   back;
//               else it is empty. Autograd asks for it, so that models need not.
//
// All matrices, tables and biases are constants without a gradient.
//
// The CPU takes some edges at a time through all steps. Of an edge it keeps what the first convolution gives, which is
// more than half of the arithmetic, for the pass back, and makes all else again. Three products of matrices, in place
// of four, make a complex product. Matrices are packed once a call. Other devices compute the same from torch's own
// operators, which is also the reference that the tests use: `mlip::so2_convolution_reference`.
#include <torch/script.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "operators/autograd.h"
#include "operators/edge_blocks.h"
#include "operators/edges_by_centre.h"
#include "operators/instruction_sets.h"
#include "operators/packed_matrix.h"
#include "operators/so2_convolution/so2_convolution_kernels.h"
#include "operators/tracing.h"

namespace mlip {
namespace {

using at::Tensor;

/// What `radial` holds, by its place.
constexpr int basis_matrix = 0, of_centres = 1, of_neighbours = 2, norm_1 = 3, linear_1 = 5, norm_2 = 7, linear_2 = 9;
constexpr std::size_t n_radial = 11;

/// The sizes of a call, checked against the tensors, and the order of rows.
struct Plan {
  c10::SymInt n_nodes, n_edges;
  std::int64_t l_max = 0, m_max, channels, hidden, width, n_rows = 0, n_pairs = 0;
  std::vector<std::int64_t> first_of_degree, of_degree, plus, minus;

  Plan(const Tensor& nodes, const Tensor& rotations, const Tensor& envelope, const Tensor& basis,
       const Tensor& node_types, const Tensor& edge_index, at::TensorList radial, at::TensorList first,
       at::TensorList second) {
    TORCH_CHECK(nodes.dim() == 3 && edge_index.dim() == 2 && fixed_size(edge_index, 0) == 2,
                "so2_convolution: expected nodes [n_nodes, (l_max+1)^2, channels] and edge_index [2, n_edges], found ",
                nodes.sizes(), " and ", edge_index.sizes());
    n_nodes = nodes.sym_size(0);
    n_edges = edge_index.sym_size(1);
    channels = fixed_size(nodes, 2);
    const std::int64_t n_components = fixed_size(nodes, 1);
    while ((l_max + 1) * (l_max + 1) < n_components) ++l_max;
    m_max = static_cast<std::int64_t>(first.size()) - 2;
    TORCH_CHECK((l_max + 1) * (l_max + 1) == n_components && l_max <= largest_degree && m_max >= 0 && m_max <= l_max &&
                    second.size() == first.size() && radial.size() == n_radial && first[1].dim() == 2 &&
                    first[1].size(0) % (2 * l_max + 1) == 0,
                "so2_convolution: ", n_components, " components of nodes, ", radial.size(), " tensors of radial, ",
                first.size(), " of first and ", second.size(), " of second do not fit each other");
    hidden = first[1].size(0) / (2 * l_max + 1);
    width = radial[basis_matrix].size(0);
    find_rows();
    const auto expect = [&](const char* name, const Tensor& tensor, const std::vector<c10::SymInt>& sizes) {
      TORCH_CHECK(tensor.sym_sizes() == sizes && tensor.scalar_type() == nodes.scalar_type(),
                  "so2_convolution: expected ", name, " ", c10::SymIntArrayRef(sizes), " of ", nodes.scalar_type(),
                  ", found ", tensor.sym_sizes(), " of ", tensor.scalar_type());
    };
    TORCH_CHECK(
        basis.dim() == 2 && node_types.sym_sizes() == c10::SymIntArrayRef({n_nodes}) && radial[of_centres].dim() == 2,
        "so2_convolution: expected basis [n_edges, n_basis] and node_types [n_nodes], found ", basis.sizes(), " and ",
        node_types.sizes());
    const std::int64_t n_elements = radial[of_centres].size(0), n_scalars = n_pairs * 2 * channels;
    expect("rotations", rotations, {n_edges, n_rows, n_components});
    expect("envelope", envelope, {n_edges});
    const std::int64_t n_basis = fixed_size(basis, 1);
    expect("basis", basis, {n_edges, n_basis});
    expect("radial[0]", radial[basis_matrix], {width, n_basis});
    for (const int table : {of_centres, of_neighbours}) expect("tables of radial", radial[table], {n_elements, width});
    for (const int k : {norm_1, norm_1 + 1, norm_2, norm_2 + 1, linear_1 + 1}) expect("radial", radial[k], {width});
    expect("radial[5]", radial[linear_1], {width, width});
    expect("radial[9]", radial[linear_2], {n_scalars, width});
    expect("radial[10]", radial[linear_2 + 1], {n_scalars});
    const std::int64_t n_degrees = l_max + 1;
    expect("first[0]", first[0], {(l_max + n_degrees) * hidden});
    expect("first[1]", first[1], {(l_max + n_degrees) * hidden, n_degrees * 2 * channels});
    expect("second[0]", second[0], {n_degrees * channels});
    expect("second[1]", second[1], {n_degrees * channels, n_degrees * hidden});
    for (std::int64_t m = 1; m <= m_max; ++m) {
      expect("first", first[m + 1], {3, (n_degrees - m) * hidden, (n_degrees - m) * 2 * channels});
      expect("second", second[m + 1], {3, (n_degrees - m) * channels, (n_degrees - m) * hidden});
    }
  }

  /// Row of l and m = 0, or of the order m > 0 with the sign +1 or -1.
  std::int64_t row(std::int64_t l, std::int64_t m, int sign) const {
    std::int64_t before = m == 0 ? 0 : l_max + 1;
    for (std::int64_t k = 1; k < m; ++k) before += 2 * (l_max + 1 - k);
    return before + l - m + (sign < 0 ? l_max + 1 - m : 0);
  }

  /// Values of an edge that the first convolution gives: gates and rows.
  std::int64_t n_kept() const { return (l_max + n_rows) * hidden; }

  MessageRows rows() const {
    return {l_max,       n_rows,      (l_max + 1) * (l_max + 1), first_of_degree.data(), of_degree.data(), n_pairs,
            plus.data(), minus.data()};
  }

 private:
  void find_rows() {
    for (std::int64_t m = 0; m <= m_max; ++m)
      for (std::int64_t l = m; l <= l_max; ++l) {
        plus.push_back(row(l, m, 1));
        minus.push_back(m == 0 ? plus.back() : row(l, m, -1));
      }
    n_pairs = static_cast<std::int64_t>(plus.size());
    first_of_degree.push_back(0);
    for (std::int64_t l = 0; l <= l_max; ++l) {
      of_degree.push_back(row(l, 0, 1));
      for (std::int64_t m = 1; m <= std::min(l, m_max); ++m)
        for (const int sign : {1, -1}) of_degree.push_back(row(l, m, sign));
      first_of_degree.push_back(static_cast<std::int64_t>(of_degree.size()));
    }
    n_rows = first_of_degree.back();
  }
};

// ---- reference -----------------------------------------------------------------------------------------------

/// The same from torch's operators: any device, differentiable, and all edges at once.
Tensor reference(const Tensor& nodes, const Tensor& rotations, const Tensor& envelope, const Tensor& basis,
                 const Tensor& node_types, const Tensor& edge_index, c10::SymInt n_owned, at::TensorList radial,
                 at::TensorList first, at::TensorList second, double epsilon) {
  const Plan plan(nodes, rotations, envelope, basis, node_types, edge_index, radial, first, second);
  const Tensor &centres = edge_index[0], &neighbours = edge_index[1];
  Tensor scalars = at::linear(basis, radial[basis_matrix]) +
                   radial[of_centres].index_select(0, node_types.index_select(0, centres)) +
                   radial[of_neighbours].index_select(0, node_types.index_select(0, neighbours));
  for (const int norm : {norm_1, norm_2}) {
    scalars = at::silu(at::layer_norm(scalars, {plan.width}, radial[norm], radial[norm + 1], epsilon));
    scalars = at::linear(scalars, radial[norm + 2], radial[norm + 3]);
  }
  scalars = scalars.view_symint({plan.n_edges, plan.n_pairs, 2 * plan.channels});
  const Tensor rotated =
      at::bmm(rotations, at::cat({nodes.index_select(0, neighbours), nodes.index_select(0, centres)}, 2));
  /// of rows [n_edges, n_rows, values] the real and the imaginary part of an order, [n_edges, values of all l]
  const auto part = [&](const Tensor& x, std::int64_t m, int sign) {
    return x.narrow(1, plan.row(m, m, sign), plan.l_max + 1 - m).flatten(1);
  };
  const auto convolution = [&](const Tensor& x, at::TensorList matrices, std::int64_t values, Tensor* gates) {
    const Tensor zero = at::linear(part(x, 0, 1), matrices[1], matrices[0]);
    const std::int64_t n_values = fixed_size(zero, 1), before = n_values - (plan.l_max + 1) * values;
    if (gates != nullptr)
      *gates = at::sigmoid(zero.narrow(1, 0, before)).view_symint({plan.n_edges, plan.l_max, values});
    std::vector<Tensor> orders = {zero.narrow(1, before, n_values - before)};
    for (std::int64_t m = 1; m <= plan.m_max; ++m) {
      const Tensor u = matrices[m + 1][0], v = matrices[m + 1][2] - u;
      const Tensor real = part(x, m, 1), imaginary = part(x, m, -1);
      orders.push_back(at::linear(real, u) - at::linear(imaginary, v));
      orders.push_back(at::linear(real, v) + at::linear(imaginary, u));
    }
    return at::cat(orders, 1).view_symint({plan.n_edges, plan.n_rows, values});
  };
  std::vector<std::int64_t> degree_of_row(plan.n_rows), pair_of_row(plan.n_rows);
  for (std::int64_t l = 0; l <= plan.l_max; ++l)
    for (std::int64_t r = plan.first_of_degree[l]; r < plan.first_of_degree[l + 1]; ++r)
      degree_of_row[plan.of_degree[r]] = l;
  for (std::int64_t pair = 0; pair < plan.n_pairs; ++pair)
    pair_of_row[plan.plus[pair]] = pair_of_row[plan.minus[pair]] = pair;
  const Tensor pairs = constant(pair_of_row, edge_index.options());
  const Tensor degrees = constant(degree_of_row, edge_index.options());
  Tensor gates;
  Tensor x = convolution(rotated * scalars.index_select(1, pairs), first, plan.hidden, &gates);
  gates = at::cat({at::sigmoid(x.narrow(1, 0, 1)), gates}, 1);
  x = convolution(x * gates.index_select(1, degrees), second, plan.channels, nullptr);
  const Tensor messages = at::bmm(rotations.transpose(1, 2), x) * envelope.view({-1, 1, 1});
  return at::zeros_symint({std::move(n_owned), nodes.sym_size(1), plan.channels}, nodes.options())
      .index_add(0, centres, messages);
}

/// Autograd keeps what the pass back of torch's operators needs.
std::tuple<Tensor, Tensor> reference_and_nothing(const Tensor& nodes, const Tensor& rotations, const Tensor& envelope,
                                                 const Tensor& basis, const Tensor& node_types,
                                                 const Tensor& edge_index, c10::SymInt n_owned, at::TensorList radial,
                                                 at::TensorList first, at::TensorList second, double epsilon, bool) {
  return {reference(nodes, rotations, envelope, basis, node_types, edge_index, std::move(n_owned), radial, first,
                    second, epsilon),
          at::empty({0}, nodes.options())};
}

// ---- CPU -----------------------------------------------------------------------------------------------------

/// One of the convolutions, or its transpose: from rows x to rows y.
///
/// (a + ib)(U + iV) = (U (a + b) - (U + V) b) + i (U (a + b) + (V - U) a) takes three products, since U (a + b) is part
/// of both. The transpose is a product with U - iV.
template <typename T>
struct Convolution {
  struct Order {
    PackedMatrix<T> common, to_real, to_imaginary;
  };
  Tensor bias;  ///< of m = 0; the transpose has none
  PackedMatrix<T> zero;
  std::vector<Order> orders;  ///< of m > 0
  T sign_of_real, sign_of_imaginary;

  Convolution(at::TensorList matrices, bool transposed)
      : zero(transposed ? matrices[1] : matrices[1].t()),
        sign_of_real(transposed ? 1 : -1),
        sign_of_imaginary(transposed ? -1 : 1) {
    if (!transposed) bias = matrices[0];
    for (std::size_t m = 2; m < matrices.size(); ++m) {
      const auto side = [&](int k) { return PackedMatrix<T>(transposed ? matrices[m][k] : matrices[m][k].t()); };
      orders.push_back({side(0), side(transposed ? 1 : 2), side(transposed ? 2 : 1)});
    }
  }
};

/// The matrices of the radial network, or their transposes.
template <typename T>
struct RadialMatrices {
  PackedMatrix<T> basis, hidden, scalars;

  RadialMatrices(at::TensorList radial, bool transposed)
      : basis(transposed ? radial[basis_matrix] : radial[basis_matrix].t()),
        hidden(transposed ? radial[linear_1] : radial[linear_1].t()),
        scalars(transposed ? radial[linear_2] : radial[linear_2].t()) {}
};

/// Contiguous inputs and the kernels' view of them.
template <typename T>
struct CpuCall {
  Tensor nodes, rotations, envelope, basis, node_types, edge_index;
  std::vector<Tensor> radial, first, second;
  T epsilon;
  Plan plan;
  EdgesByCentre edges;
  MessageRows rows;
  RadialMatrices<T> to_scalars;
  Convolution<T> to_message;
  const SO2ConvolutionKernels<T>& kernels = *instruction_set().kernels<T>().so2_convolution;

  CpuCall(const Tensor& nodes_, const Tensor& rotations_, const Tensor& envelope_, const Tensor& basis_,
          const Tensor& node_types_, const Tensor& edge_index_, std::int64_t n_owned, at::TensorList radial_,
          at::TensorList first_, at::TensorList second_, double epsilon_)
      : nodes(nodes_.contiguous()),
        rotations(rotations_.contiguous()),
        envelope(envelope_.contiguous()),
        basis(basis_.contiguous()),
        node_types(node_types_.contiguous()),
        edge_index(edge_index_.contiguous()),
        radial(contiguous(radial_)),
        first(contiguous(first_)),
        second(contiguous(second_)),
        epsilon(static_cast<T>(epsilon_)),
        plan(nodes, rotations, envelope, basis, node_types, edge_index, radial, first, second),
        edges("so2_convolution", edge_index, n_owned, plan.n_nodes.expect_int()),
        rows(plan.rows()),
        to_scalars(radial, false),
        to_message(second, false) {
    const std::int64_t n_elements = radial[of_centres].size(0);
    const std::int64_t* const types = node_types.const_data_ptr<std::int64_t>();
    TORCH_CHECK_INDEX(
        std::all_of(types, types + node_types.numel(), [&](auto type) { return type >= 0 && type < n_elements; }),
        "so2_convolution: a node has a type outside [0, ", n_elements, ")");
  }
};

/// What the pass back multiplies with.
template <typename T>
struct PassBack {
  RadialMatrices<T> radial;
  Convolution<T> first, second;
};

/// The steps of one block of edges, and the memory of what they make.
template <typename T>
class Block {
 public:
  Block(const CpuCall<T>& call, bool back)
      : call_(call), plan_(call.plan), kernels_(call.kernels), gates_(call.plan.l_max * call.plan.hidden) {
    const std::int64_t n_degrees = plan_.l_max + 1, C = plan_.channels, H = plan_.hidden;
    const std::int64_t n_basis = call.basis.size(1), n_sums = (plan_.n_pairs - n_degrees) * std::max({2 * C, H, C});
    const std::int64_t sizes[] = {n_basis,
                                  plan_.width,
                                  plan_.width,
                                  plan_.width,
                                  1,
                                  1,
                                  plan_.n_pairs * 2 * C,
                                  plan_.n_rows * 2 * C,
                                  gates_ + plan_.n_rows * H,
                                  plan_.n_rows * H,
                                  plan_.n_rows * C,
                                  n_sums,
                                  back ? plan_.n_rows * 2 * C : 0,
                                  back ? plan_.n_pairs * 2 * C : 0};
    std::int64_t total = 0;
    for (const std::int64_t size : sizes) total += block_size * size;
    memory_ = at::empty({total}, call.nodes.options());
    T* next = memory_.template data_ptr<T>();
    std::size_t k = 0;
    for (T** const part :
         {&basis_, &normalized_1_, &normalized_2_, &activated_, &inverse_1_, &inverse_2_, &scalars_, &rotated_.data,
          &first_.data, &gated_.data, &second_.data, &sums_, &scaled_.data, &of_scalars_}) {
      *part = next;
      next += block_size * sizes[k++];
    }
    rotated_ = {rotated_.data, plan_.n_rows * 2 * C, 2 * C};
    first_ = {first_.data + gates_, gates_ + plan_.n_rows * H, H};
    gated_ = {gated_.data, plan_.n_rows * H, H};
    second_ = {second_.data, plan_.n_rows * C, C};
    scaled_ = back ? BlockRows<T>{scaled_.data, rotated_.stride, rotated_.width} : rotated_;
  }

  /// The edges at positions [begin, end) in the order of centres.
  void take(std::int64_t begin, std::int64_t end) {
    edges_.take(call_.edges, call_.edge_index, begin, end);
    n_ = edges_.n;
    block_ = {n_,
              edges_.edges.data(),
              edges_.centres.data(),
              edges_.neighbours.data(),
              call_.rotations.template const_data_ptr<T>(),
              call_.envelope.template const_data_ptr<T>()};
  }

  /// Adds the messages to the result, and keeps what the first convolution gives unless `kept` is null.
  void forward(const Convolution<T>& first, T* result, T* kept) {
    rotate_nodes();
    kernels_.scale(call_.rows, n_, rotated_, scalars_, scaled_);
    convolve(first, scaled_, 0, first_, gates_);
    for (std::int64_t k = 0; kept != nullptr && k < n_; ++k)
      std::copy_n(first_.data - gates_ + k * first_.stride, first_.stride, kept + edges_.edges[k] * first_.stride);
    make_message();
    kernels_.rotate_back(call_.rows, block_, edges_.centres.data(), result, plan_.channels, true, second_, 0);
  }

  /// Gradients of all that the messages were made of, from what `forward` kept.
  void back(const PassBack<T>& matrices, const T* kept, const T* of_result, T* of_nodes, T* of_rotations,
            T* of_envelope, T* of_basis) {
    const T* const nodes = call_.nodes.template const_data_ptr<T>();
    const std::int64_t C = plan_.channels;
    rotate_nodes();
    for (std::int64_t k = 0; k < n_; ++k)
      std::copy_n(kept + edges_.edges[k] * first_.stride, first_.stride, first_.data - gates_ + k * first_.stride);
    make_message();
    kernels_.rotation_gradient(call_.rows, block_, edges_.centres.data(), of_result, C, true, second_, 0, of_rotations,
                               of_envelope);
    kernels_.rotate(call_.rows, block_, edges_.centres.data(), of_result, C, true, second_, 0);
    convolve(matrices.second, second_, 0, gated_, 0);
    kernels_.gate_backward(call_.rows, n_, first_, gated_);
    convolve(matrices.first, first_, gates_, scaled_, 0);
    kernels_.scale_backward(call_.rows, n_, rotated_, scalars_, scaled_, of_scalars_);
    for (const bool centre : {false, true}) {
      const std::int64_t* const ends = centre ? edges_.centres.data() : edges_.neighbours.data();
      kernels_.rotation_gradient(call_.rows, block_, ends, nodes, C, false, scaled_, centre ? C : 0, of_rotations,
                                 nullptr);
      kernels_.rotate_back(call_.rows, block_, ends, of_nodes, C, false, scaled_, centre ? C : 0);
    }
    radial_network_back(matrices.radial, of_basis);
  }

 private:
  /// What enters the first convolution, and the scalars that it is to be multiplied with.
  void rotate_nodes() {
    const T* const nodes = call_.nodes.template const_data_ptr<T>();
    radial_network();
    kernels_.rotate(call_.rows, block_, edges_.neighbours.data(), nodes, plan_.channels, false, rotated_, 0);
    kernels_.rotate(call_.rows, block_, edges_.centres.data(), nodes, plan_.channels, false, rotated_, plan_.channels);
  }

  /// From what the first convolution gives to the message in the frame of the edge, `second_`.
  void make_message() {
    kernels_.gate(call_.rows, n_, first_, gated_);
    convolve(call_.to_message, gated_, 0, second_, 0);
  }

  void radial_network() {
    const std::int64_t n_basis = call_.basis.size(1), width = plan_.width;
    const T* const basis = call_.basis.template const_data_ptr<T>();
    const T* const of_centre = call_.radial[of_centres].template const_data_ptr<T>();
    const T* const of_neighbour = call_.radial[of_neighbours].template const_data_ptr<T>();
    const std::int64_t* const types = call_.node_types.template const_data_ptr<std::int64_t>();
    for (std::int64_t k = 0; k < n_; ++k) {
      std::copy_n(basis + edges_.edges[k] * n_basis, n_basis, basis_ + k * n_basis);
      const T* const a = of_centre + types[edges_.centres[k]] * width;
      const T* const b = of_neighbour + types[edges_.neighbours[k]] * width;
      for (std::int64_t u = 0; u < width; ++u) normalized_1_[k * width + u] = a[u] + b[u];
    }
    call_.to_scalars.basis.multiply(n_, basis_, normalized_1_, true);
    kernels_.normalize(n_, width, call_.epsilon, radial(norm_1), radial(norm_1 + 1), normalized_1_, inverse_1_,
                       activated_);
    fill_rows(call_.radial[linear_1 + 1], normalized_2_, width);
    call_.to_scalars.hidden.multiply(n_, activated_, normalized_2_, true);
    kernels_.normalize(n_, width, call_.epsilon, radial(norm_2), radial(norm_2 + 1), normalized_2_, inverse_2_,
                       activated_);
    fill_rows(call_.radial[linear_2 + 1], scalars_, plan_.n_pairs * 2 * plan_.channels);
    call_.to_scalars.scalars.multiply(n_, activated_, scalars_, true);
  }

  void radial_network_back(const RadialMatrices<T>& matrices, T* of_basis) {
    const std::int64_t n_basis = call_.basis.size(1), width = plan_.width;
    matrices.scalars.multiply(n_, of_scalars_, activated_);
    kernels_.normalize_backward(n_, width, radial(norm_2), radial(norm_2 + 1), normalized_2_, inverse_2_, activated_);
    matrices.hidden.multiply(n_, activated_, normalized_2_);
    kernels_.normalize_backward(n_, width, radial(norm_1), radial(norm_1 + 1), normalized_1_, inverse_1_,
                                normalized_2_);
    matrices.basis.multiply(n_, normalized_2_, basis_);
    for (std::int64_t k = 0; k < n_; ++k)
      std::copy_n(basis_ + k * n_basis, n_basis, of_basis + edges_.edges[k] * n_basis);
  }

  /// From rows x to rows y. Gates stand before the rows of one of them.
  void convolve(const Convolution<T>& convolution, BlockRows<T> x, std::int64_t x_gates, BlockRows<T> y,
                std::int64_t y_gates) {
    T* const zero = y.data - y_gates;
    const bool biased = convolution.bias.defined();
    if (biased) fill_rows(convolution.bias, zero, y.stride);
    convolution.zero.multiply(n_, x.data - x_gates, x.stride, zero, y.stride, biased);
    kernels_.sum_signs(call_.rows, n_, x, sums_);
    const std::int64_t n_sums = (plan_.n_pairs - plan_.l_max - 1) * x.width;
    const T* sums = sums_;
    for (std::int64_t m = 1; m <= plan_.m_max; ++m) {
      const auto& order = convolution.orders[m - 1];
      const auto part = [&](const BlockRows<T>& rows, int sign) {
        return rows.data + plan_.row(m, m, sign) * rows.width;
      };
      T *const real = part(y, 1), *const imaginary = part(y, -1);
      order.common.multiply(n_, sums, n_sums, imaginary, y.stride);
      for (std::int64_t k = 0; k < n_; ++k)
        std::copy_n(imaginary + k * y.stride, order.common.columns(), real + k * y.stride);
      order.to_real.multiply(n_, part(x, -1), x.stride, real, y.stride, true, convolution.sign_of_real);
      order.to_imaginary.multiply(n_, part(x, 1), x.stride, imaginary, y.stride, true, convolution.sign_of_imaginary);
      sums += order.common.inner();
    }
  }

  /// A row for each edge, `stride` values apart.
  void fill_rows(const Tensor& row, T* rows, std::int64_t stride) const {
    for (std::int64_t k = 0; k < n_; ++k) std::copy_n(row.template const_data_ptr<T>(), row.numel(), rows + k * stride);
  }

  const T* radial(int k) const { return call_.radial[k].template const_data_ptr<T>(); }

  const CpuCall<T>& call_;
  const Plan& plan_;
  const SO2ConvolutionKernels<T>& kernels_;
  BlockOfEdges edges_;
  std::int64_t gates_;  ///< values that stand before the rows of first_
  std::int64_t n_ = 0;
  EdgeBlock<T> block_{};
  Tensor memory_;
  T *basis_, *normalized_1_, *normalized_2_, *activated_, *inverse_1_, *inverse_2_, *scalars_, *sums_, *of_scalars_;
  BlockRows<T> rotated_{}, scaled_{}, first_{}, gated_{}, second_{};
};

std::tuple<Tensor, Tensor> forward_cpu(const Tensor& nodes, const Tensor& rotations, const Tensor& envelope,
                                       const Tensor& basis, const Tensor& node_types, const Tensor& edge_index,
                                       std::int64_t n_owned, at::TensorList radial, at::TensorList first,
                                       at::TensorList second, double epsilon, bool keep) {
  Tensor result = at::zeros({n_owned, nodes.size(1), nodes.size(2)}, nodes.options());
  Tensor kept;
  AT_DISPATCH_FLOATING_TYPES(nodes.scalar_type(), "so2_convolution", [&] {
    const CpuCall<scalar_t> call(nodes, rotations, envelope, basis, node_types, edge_index, n_owned, radial, first,
                                 second, epsilon);
    const Convolution<scalar_t> to_kept_rows(call.first, false);
    kept = at::empty({keep ? edge_index.size(1) : 0, call.plan.n_kept()}, nodes.options());
    scalar_t* const to = result.data_ptr<scalar_t>();
    scalar_t* const to_kept = keep ? kept.data_ptr<scalar_t>() : nullptr;
    for_chunks(call.edges, call.edges.chunks(), [&](std::int64_t, std::int64_t begin, std::int64_t end) {
      Block<scalar_t> block(call, false);
      for (; begin < end; begin += block_size) {
        block.take(begin, std::min(begin + block_size, end));
        block.forward(to_kept_rows, to, to_kept);
      }
    });
  });
  return {result, kept};
}

/// -> gradients of nodes, rotations, envelope, basis
std::tuple<Tensor, Tensor, Tensor, Tensor> backward_cpu(const Tensor& gradient, const Tensor& kept, const Tensor& nodes,
                                                        const Tensor& rotations, const Tensor& envelope,
                                                        const Tensor& basis, const Tensor& node_types,
                                                        const Tensor& edge_index, at::TensorList radial,
                                                        at::TensorList first, at::TensorList second, double epsilon) {
  Tensor of_rotations = at::zeros(rotations.sizes(), rotations.options());
  Tensor of_envelope = at::zeros(envelope.sizes(), envelope.options());
  Tensor of_basis = at::empty(basis.sizes(), basis.options());
  Tensor of_nodes;
  TORCH_CHECK(gradient.dim() == 3 && gradient.size(1) == nodes.size(1) && gradient.size(2) == nodes.size(2) &&
                  gradient.scalar_type() == nodes.scalar_type(),
              "so2_convolution_backward: the gradient ", gradient.sizes(), " does not fit nodes ", nodes.sizes());
  AT_DISPATCH_FLOATING_TYPES(nodes.scalar_type(), "so2_convolution_backward", [&] {
    const CpuCall<scalar_t> call(nodes, rotations, envelope, basis, node_types, edge_index, gradient.size(0), radial,
                                 first, second, epsilon);
    const Tensor of_result = gradient.contiguous(), from_kept = kept.contiguous();
    TORCH_CHECK(kept.sizes() == at::IntArrayRef({edge_index.size(1), call.plan.n_kept()}) &&
                    kept.scalar_type() == nodes.scalar_type(),
                "so2_convolution_backward: nothing was kept for it");
    const PassBack<scalar_t> matrices{{call.radial, true}, {call.first, true}, {call.second, true}};
    const std::vector<std::int64_t> bounds = call.edges.chunks();
    std::vector<Tensor> of_nodes_by_chunk;  // edges of several chunks may have one neighbour
    for (std::size_t chunk = 1; chunk < bounds.size(); ++chunk)
      of_nodes_by_chunk.push_back(at::zeros(nodes.sizes(), nodes.options()));
    for_chunks(call.edges, bounds, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end) {
      Block<scalar_t> block(call, true);
      for (; begin < end; begin += block_size) {
        block.take(begin, std::min(begin + block_size, end));
        block.back(matrices, from_kept.const_data_ptr<scalar_t>(), of_result.const_data_ptr<scalar_t>(),
                   of_nodes_by_chunk[chunk].template data_ptr<scalar_t>(), of_rotations.data_ptr<scalar_t>(),
                   of_envelope.data_ptr<scalar_t>(), of_basis.data_ptr<scalar_t>());
      }
    });
    of_nodes = of_nodes_by_chunk[0];
    for (std::size_t chunk = 1; chunk < of_nodes_by_chunk.size(); ++chunk) of_nodes.add_(of_nodes_by_chunk[chunk]);
  });
  return {of_nodes, of_rotations, of_envelope, of_basis};
}

// ---- autograd ------------------------------------------------------------------------------------------------

// The count is a SymInt, as in ghost_gather.cpp.
std::tuple<Tensor, Tensor> forward_autograd(const Tensor& nodes, const Tensor& rotations, const Tensor& envelope,
                                            const Tensor& basis, const Tensor& node_types, const Tensor& edge_index,
                                            c10::SymInt n_owned, at::TensorList radial, at::TensorList first,
                                            at::TensorList second, double epsilon, bool keep) {
  if (!nodes.is_cpu())
    return reference_and_nothing(nodes, rotations, envelope, basis, node_types, edge_index, std::move(n_owned), radial,
                                 first, second, epsilon, keep);
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("mlip::so2_convolution", "").typed<decltype(forward_autograd)>();
  const auto forward = [&]() -> Recorded {
    const auto [result, kept] = op.call(nodes, rotations, envelope, basis, node_types, edge_index, n_owned, radial,
                                        first, second, epsilon, true);
    return {{result}, {kept, nodes, rotations, envelope, basis, node_types, edge_index}};
  };
  const std::vector<Tensor> inputs = {nodes, rotations, envelope, basis};
  if (needs_gradient(inputs))
    return {record(inputs, forward,
                   [radial = radial.vec(), first = first.vec(), second = second.vec(), epsilon](
                       const auto& gradients, const auto& kept, const auto&) -> std::vector<Tensor> {
                     const LastDerivative only("so2_convolution");
                     static const auto op = c10::Dispatcher::singleton()
                                                .findSchemaOrThrow("mlip::so2_convolution_backward", "")
                                                .typed<decltype(backward_cpu)>();
                     const auto [of_nodes, of_rotations, of_envelope, of_basis] =
                         op.call(gradients[0], kept[0], kept[1], kept[2], kept[3], kept[4], kept[5], kept[6], radial,
                                 first, second, epsilon);
                     return {of_nodes, of_rotations, of_envelope, of_basis};
                   })[0],
            at::empty({0}, nodes.options())};
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  return op.call(nodes, rotations, envelope, basis, node_types, edge_index, std::move(n_owned), radial, first, second,
                 epsilon, keep);
}

}  // namespace
}  // namespace mlip

// `mlip` itself is opened in ghost_gather.cpp.
TORCH_LIBRARY_FRAGMENT(mlip, library) {
  library.def(
      "so2_convolution(Tensor nodes, Tensor rotations, Tensor envelope, Tensor basis, Tensor node_types, "
      "Tensor edge_index, SymInt n_owned, Tensor[] radial, Tensor[] first, Tensor[] second, float epsilon, bool keep) "
      "-> (Tensor, Tensor)");
  library.def(
      "so2_convolution_backward(Tensor gradient, Tensor kept, Tensor nodes, Tensor rotations, Tensor envelope, Tensor "
      "basis, "
      "Tensor node_types, Tensor edge_index, Tensor[] radial, Tensor[] first, Tensor[] second, float epsilon) "
      "-> (Tensor, Tensor, Tensor, Tensor)");
  library.def(
      "so2_convolution_reference(Tensor nodes, Tensor rotations, Tensor envelope, Tensor basis, Tensor node_types, "
      "Tensor edge_index, SymInt n_owned, Tensor[] radial, Tensor[] first, Tensor[] second, float epsilon) -> Tensor",
      mlip::reference);
}

TORCH_LIBRARY_IMPL(mlip, CPU, library) {
  library.impl("so2_convolution", mlip::forward_cpu);
  library.impl("so2_convolution_backward", mlip::backward_cpu);
}

TORCH_LIBRARY_IMPL(mlip, CompositeExplicitAutograd, library) {
  library.impl("so2_convolution", mlip::reference_and_nothing);
}

TORCH_LIBRARY_IMPL(mlip, Autograd, library) { library.impl("so2_convolution", mlip::forward_autograd); }

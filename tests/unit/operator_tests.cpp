// The operators' CPU kernels on several threads, in every instruction set, against the same written with torch's
// operators; and the features of ghosts on their way between threads. `make sanitize` runs it under the sanitizers.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/autograd.h>

#include <atomic>
#include <cmath>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "core/exchange.h"
#include "model/exchange_relay.h"
#include "operators/ghost_gather.h"
#include "operators/packed_matrix.h"
#include "unit/counted_operators.h"
#include "unit/emulated_device.h"
#include "unit/expect.h"

namespace {

using at::Tensor;
using c10::IValue;
using mlip::testing::expect;
using Tensors = std::vector<Tensor>;
/// From the inputs that have a gradient to the outputs.
using Function = std::function<Tensors(const Tensors&)>;

// Sums of a few hundred products of numbers of order one.
constexpr double float64_tolerance = 1e-12, float32_tolerance = 2e-4;
constexpr int n_threads = 3;

double tolerance(at::ScalarType type) { return type == at::kDouble ? float64_tolerance : float32_tolerance; }

/// Tensors of the CPU go to the device of the first one.
std::vector<IValue> call(const std::string& name, std::vector<IValue> stack) {
  std::optional<at::Device> device;
  const auto moved = [&](const Tensor& tensor) {
    if (!device) device = tensor.device();
    return tensor.to(*device);
  };
  for (IValue& value : stack) {
    if (value.isTensor()) {
      value = moved(value.toTensor());
    } else if (value.isTensorList()) {
      Tensors tensors;
      for (const Tensor& tensor : value.toTensorVector()) tensors.push_back(moved(tensor));
      value = tensors;
    }
  }
  c10::Dispatcher::singleton().findSchemaOrThrow(("mlip::" + name).c_str(), "").callBoxed(stack);
  return stack;
}

Tensors tensors_of(const std::vector<IValue>& values) {
  Tensors all;
  for (const IValue& value : values)
    if (value.isTensor())
      all.push_back(value.toTensor());
    else
      for (const Tensor& tensor : value.toTensorVector()) all.push_back(tensor);
  return all;
}

/// The operator `name`, whose first arguments have a gradient.
Function operator_of(const std::string& name, const std::vector<IValue>& rest) {
  return [=](const Tensors& inputs) {
    std::vector<IValue> stack(inputs.begin(), inputs.end());
    stack.insert(stack.end(), rest.begin(), rest.end());
    return tensors_of(call(name, std::move(stack)));
  };
}

/// Outputs, then the gradients of a sum in which every output has its own weight.
Tensors with_gradients(const Function& function, const Tensors& inputs) {
  Tensors leaves;
  for (const Tensor& input : inputs) leaves.push_back(input.detach().clone().requires_grad_());
  Tensors results = function(leaves);
  Tensor sum = at::zeros({}, inputs[0].options());
  for (const Tensor& output : results)
    sum = sum + (output * at::arange(output.numel(), output.options()).cos().reshape(output.sizes())).sum();
  for (const Tensor& gradient : torch::autograd::grad({sum}, leaves)) results.push_back(gradient);
  for (Tensor& result : results) result = result.detach();
  return results;
}

void expect_close(const Tensors& found, const Tensors& expected, const std::string& what) {
  expect(found.size() == expected.size(), what + ": number of tensors");
  for (std::size_t k = 0; k < std::min(found.size(), expected.size()); ++k) {
    const double largest = tolerance(expected[k].scalar_type());
    expect(found[k].sizes() == expected[k].sizes() && at::allclose(found[k], expected[k], largest, largest),
           what + ", tensor " + std::to_string(k));
  }
}

/// A fused operator, and the same from torch's operators.
struct Case {
  std::string name;
  Tensors inputs;
  Function fused, reference;
};

/// All paths between blocks of l = 0, 1, 2 with l3 <= 2. Channels that no vector divides; edges in order and not.
Case tensor_product(at::ScalarType type, std::int64_t n_edges, bool ordered, bool tabulated) {
  constexpr std::int64_t channels = 21, n_owned = 50, n_nodes = 60, n_intervals = 12;
  constexpr double step = 0.5;  // Å
  const auto first_component = [](std::int64_t l) { return l * l; };
  const auto options = at::TensorOptions(type);
  std::vector<std::int64_t> paths;
  std::int64_t n_weights = 0;
  Tensors coefficients;
  for (std::int64_t l3 = 0; l3 <= 2; ++l3) {
    std::int64_t first_channel = 0;
    for (std::int64_t l1 = 0; l1 <= 2; ++l1)
      for (std::int64_t l2 = std::abs(l3 - l1); l2 <= std::min<std::int64_t>(2, l1 + l3); ++l2) {
        const std::int64_t path[] = {
            l1, l2, l3, channels, first_component(l1) * channels, first_component(l2), n_weights, l3, first_channel};
        paths.insert(paths.end(), std::begin(path), std::end(path));
        first_channel += channels;
        n_weights += channels;
        // Any numbers but for a scalar, which leaves a direction as it is.
        coefficients.push_back(l2 == 0 ? at::eye(2 * l1 + 1, options).flatten()
                                       : at::randn({(2 * l1 + 1) * (2 * l2 + 1) * (2 * l3 + 1)}, options));
      }
  }
  const auto index = at::TensorOptions(at::kLong);
  Tensor centres = at::randint(n_owned, {n_edges}, index);
  if (ordered) centres = std::get<0>(centres.sort());
  const Tensor edges = at::stack({centres, at::randint(n_nodes, {n_edges}, index)});
  const Tensor radial = tabulated ? at::rand({n_edges}, options) * (step * n_intervals)  // Å
                                  : at::randn({n_edges, n_weights}, options);
  // Splines with a kink, or polynomials, as files of before have them.
  const std::int64_t kink = tabulated && ordered ? 5 : 0;
  Tensor table = !tabulated ? at::empty({0}, options)
                 : ordered  ? at::randn({n_intervals + 10, n_weights}, options)
                            : at::randn({n_intervals, 6, n_weights}, options);
  IValue table_of_edge;  // none
  const bool several = tabulated && !ordered;
  if (several) {
    table = at::stack({table, 2 * table, at::randn(table.sizes(), options)});
    table_of_edge = at::randint(table.size(0), {n_edges}, index);
  }
  const std::vector<IValue> rest = {edges, n_owned, paths, at::cat(coefficients), table, step, table_of_edge, kink};
  return {std::string("edge_tensor_product, ") + std::to_string(n_edges) + " edges" + (ordered ? "" : " out of order") +
              (several     ? ", with several tables"
               : tabulated ? ", with a table"
                           : ""),
          {at::randn({n_nodes, 9 * channels}, options), at::randn({n_edges, 9}, options), radial},
          operator_of("edge_tensor_product", rest),
          operator_of("edge_tensor_product_reference", rest)};
}

Case contraction(at::ScalarType type, std::int64_t n_atoms, std::int64_t degree) {
  constexpr std::int64_t channels = 21, n_components = 4, n_outputs = 3, n_monomials = 12, n_elements = 2;
  const auto index = at::TensorOptions(at::kLong);
  const Tensor factors = at::randint(n_components + 1, {n_monomials, degree}, index);
  const Tensor terms = (at::rand({n_outputs, n_monomials}) < 0.6).nonzero();
  const std::vector<IValue> rest = {at::randint(n_elements, {n_atoms}, index), factors, terms, n_outputs,
                                    at::randn({n_elements, 2, terms.size(0), 16}, at::TensorOptions(type))};
  return {"symmetric_contraction of degree " + std::to_string(degree) + ", " + std::to_string(n_atoms) + " atoms",
          {at::randn({n_atoms, n_components, channels}, at::TensorOptions(type))},
          operator_of("symmetric_contraction", rest),
          operator_of("symmetric_contraction_reference", rest)};
}

/// Features by component, or harmonics to be weighted. Some entries have several terms, some components none.
Case environment_product(at::ScalarType type, std::int64_t n_edges, bool ordered, bool weighted) {
  constexpr std::int64_t channels = 21, n_owned = 50, n_components = 4;
  const auto options = at::TensorOptions(type);
  const std::vector<std::int64_t> terms = {0, 0, 0, 0, 1, 2, 1, 1, 0, 1, 0, 2, 1, 2, 2, 1, 3, 2, 3, 3, 0, 3, 0, 4};
  const std::vector<std::int64_t> blocks = {0, 1, 1, 1}, by_component = {-1};
  Tensor centres = at::randint(n_owned, {n_edges}, at::TensorOptions(at::kLong));
  if (ordered) centres = std::get<0>(centres.sort());
  const std::vector<IValue> rest = {at::stack({centres, centres}),
                                    n_owned,
                                    terms,
                                    at::randn({static_cast<std::int64_t>(terms.size()) / 3, channels}, options),
                                    weighted ? blocks : by_component,
                                    blocks};
  return {std::string("environment_product, ") + std::to_string(n_edges) + " edges" + (ordered ? "" : " out of order") +
              (weighted ? ", weighted harmonics" : ""),
          {at::randn({n_edges, weighted ? 2 : n_components, channels}, options),
           at::randn({n_edges, 2, channels}, options), at::randn({n_edges, n_components}, options)},
          operator_of("environment_product", rest),
          operator_of("environment_product_reference", rest)};
}

/// Channels that no vector divides; entries of rotations between different l are zero, and have no gradient.
Case so2_convolution(at::ScalarType type, std::int64_t n_edges, bool ordered, std::int64_t l_max, std::int64_t m_max) {
  constexpr std::int64_t channels = 21, hidden = 13, width = 19, n_basis = 9, n_nodes = 60, n_owned = 50,
                         n_elements = 3;
  const auto options = at::TensorOptions(type);
  const auto index = at::TensorOptions(at::kLong);
  const std::int64_t n_degrees = l_max + 1, n_components = n_degrees * n_degrees;
  std::vector<std::int64_t> degrees(n_degrees), all;  // l of each row, of each component
  for (std::int64_t l = 0; l <= l_max; ++l) {
    degrees[l] = l;
    for (std::int64_t k = 0; k < 2 * l + 1; ++k) all.push_back(l);
  }
  for (std::int64_t m = 1; m <= m_max; ++m)
    for (int sign = 0; sign < 2; ++sign)
      for (std::int64_t l = m; l <= l_max; ++l) degrees.push_back(l);
  const Tensor own = at::tensor(degrees, index).unsqueeze(1).eq(at::tensor(all, index)).to(type);
  const std::int64_t n_rows = own.size(0), n_scalars = 2 * channels * (n_degrees + (n_rows - n_degrees) / 2);
  const auto random = [&](at::IntArrayRef sizes) { return at::randn(sizes, options) / std::sqrt(sizes.back()); };
  const auto convolution = [&](std::int64_t inputs, std::int64_t outputs, std::int64_t gates) {
    Tensors tensors = {random({gates + n_degrees * outputs}),
                       random({gates + n_degrees * outputs, n_degrees * inputs})};
    for (std::int64_t m = 1; m <= m_max; ++m) {
      const Tensor u = random({(n_degrees - m) * outputs, (n_degrees - m) * inputs}), v = at::rand_like(u) * u;
      tensors.push_back(at::stack({u, v - u, u + v}));
    }
    return tensors;
  };
  Tensor centres = at::randint(n_owned, {n_edges}, index);
  if (ordered) centres = std::get<0>(centres.sort());
  const std::vector<IValue> rest = {
      at::randint(n_elements, {n_nodes}, index),
      at::stack({centres, at::randint(n_nodes, {n_edges}, index)}),
      n_owned,
      Tensors{random({width, n_basis}), random({n_elements, width}), random({n_elements, width}),
              at::randn({width}, options), random({width}), random({width, width}), random({width}),
              at::randn({width}, options), random({width}), random({n_scalars, width}), random({n_scalars})},
      convolution(2 * channels, hidden, l_max * hidden),
      convolution(hidden, channels, 0),
      1e-5};
  std::vector<IValue> of_operator = rest;
  of_operator.emplace_back(false);
  const auto own_rotations = [=](const Function& operation) -> Function {
    return [=](const Tensors& inputs) {
      return Tensors{operation({inputs[0], inputs[1] * own.to(inputs[1].device()), inputs[2], inputs[3]})[0]};
    };
  };
  return {"so2_convolution up to l = " + std::to_string(l_max) + ", " + std::to_string(n_edges) + " edges" +
              (ordered ? "" : " out of order"),
          {at::randn({n_nodes, n_components, channels}, options), random({n_edges, n_rows, n_components}),
           at::rand({n_edges}, options), at::randn({n_edges, n_basis}, options)},
          own_rotations(operator_of("so2_convolution", of_operator)),
          own_rotations(operator_of("so2_convolution_reference", rest))};
}

/// Those of ANI-2x, or numbers of functions that no vector divides; edges on both sides of the angular cutoff, two in a
/// line, and an element that no node has.
Case symmetry_functions(at::ScalarType type, std::int64_t n_edges, bool ordered, bool odd) {
  constexpr std::int64_t n_owned = 30, n_nodes = 40, n_elements = 4;
  const auto index = at::TensorOptions(at::kLong), options = at::TensorOptions(type);
  const auto spaced = [](double first, double step, int n) {
    std::vector<double> values;
    for (int k = 0; k < n; ++k) values.push_back(first + step * k);
    return values;
  };
  Tensor centres = at::randint(n_owned, {n_edges}, index);
  if (ordered) centres = std::get<0>(centres.sort());
  Tensor vectors = at::randn({n_edges, 3}, options);
  vectors = vectors / vectors.norm(2, 1, true) * (0.7 + 4.4 * at::rand({n_edges, 1}, options));  // Å
  if (n_edges > 1) {
    vectors[0] *= 2.0 / vectors[0].norm();
    vectors[1] = -vectors[0];
    centres[1].copy_(centres[0]);
  }
  const std::vector<double> constants = {19.7, 5.1, 12.5, 14.1, 3.5};
  const std::vector<IValue> rest = {at::randint(n_elements - 1, {n_nodes}, index),
                                    at::stack({centres, at::randint(n_nodes, {n_edges}, index)}),
                                    n_owned,
                                    n_elements,
                                    spaced(0.8, 0.26875, odd ? 5 : 16),
                                    spaced(0.8, 0.3375, odd ? 3 : 8),
                                    spaced(0.39269908, 0.78539816, odd ? 3 : 4),
                                    constants};
  return {"symmetry_functions, " + std::to_string(n_edges) + " edges" + (ordered ? "" : " out of order") +
              (odd ? ", odd numbers of functions" : ""),
          {vectors},
          operator_of("symmetry_functions", rest),
          operator_of("symmetry_functions_reference", rest)};
}

/// Heads that no vector divides, of two widths.
Case neighbour_attention(at::ScalarType type, std::int64_t n_edges, bool ordered, bool tabulated) {
  constexpr std::int64_t n_heads = 2, n_features = 42, n_intervals = 12, n_hidden = 9, n_nodes = 60, n_owned = 50;
  constexpr double step = 0.5;  // Å
  const std::vector<std::int64_t> degrees = {1, 5, 3};
  constexpr std::int64_t n_degrees = 3, n_components = 9;
  const auto options = at::TensorOptions(type);
  const auto index = at::TensorOptions(at::kLong);
  const auto random = [&](at::IntArrayRef sizes) { return at::randn(sizes, options) / std::sqrt(sizes.back()); };
  Tensor centres = at::randint(n_owned, {n_edges}, index);
  if (ordered) centres = std::get<0>(centres.sort());
  const std::vector<IValue> rest = {
      at::stack({centres, at::randint(n_nodes, {n_edges}, index)}),
      n_heads,
      degrees,
      tabulated ? at::randn({n_intervals + 5, 2 * n_features}, options) : at::empty({0}, options),
      step,
      at::rand({n_components}, options),
      Tensors{random({n_degrees, 2 * n_hidden}), random({2 * n_hidden}), random({2, n_hidden, n_features})},
      0};  // no kink
  const Tensor keys = random({n_nodes, 2 * n_features});
  return {"neighbour_attention, " + std::to_string(n_edges) + " edges" + (ordered ? "" : " out of order") +
              (tabulated ? ", with a table" : ""),
          {at::randn({n_owned, 2 * n_features}, options), keys, at::randn({n_nodes, n_features}, options),
           at::randn({n_nodes, n_components}, options),
           tabulated ? at::rand({n_edges}, options) * (step * n_intervals) : random({n_edges, 2 * n_features}),
           at::rand({n_edges}, options), at::randn({n_edges, n_components}, options)},
          operator_of("neighbour_attention", rest),
          operator_of("neighbour_attention_reference", rest)};
}

/// Channels that no vector divides.
Case edge_perceptron(at::ScalarType type, std::int64_t n_edges, bool ordered, bool to_atoms) {
  constexpr std::int64_t n_channels = 21, n_radial = 3, n_nodes = 60, n_owned = 50;
  const auto index = at::TensorOptions(at::kLong);
  const auto random = [&](at::IntArrayRef sizes) {
    return at::randn(sizes, at::TensorOptions(type)) / std::sqrt(sizes.back());
  };
  Tensor centres = at::randint(n_owned, {n_edges}, index);
  if (ordered) centres = std::get<0>(centres.sort());
  const Tensor ends = at::stack({centres, at::randint(n_nodes, {n_edges}, index)});
  const Tensors weights = {random({n_channels, 2 * n_channels}), random({2, n_channels, n_channels}),
                           random({2 * n_channels}), random({n_radial, n_channels})};
  const auto atoms = [&](std::int64_t n) { return at::randn({n, 2 * n_channels}, at::TensorOptions(type)); };
  const auto fused = operator_of("edge_perceptron", {ends, weights, to_atoms, false});
  return {"edge_perceptron, " + std::to_string(n_edges) + " edges" + (ordered ? "" : " out of order") +
              (to_atoms ? ", to atoms" : ""),
          {atoms(n_owned), atoms(n_nodes), at::randn({n_edges, n_channels}, at::TensorOptions(type)),
           at::randn({n_edges, n_radial}, at::TensorOptions(type))},
          [=](const Tensors& inputs) { return Tensors{fused(inputs)[0]}; },
          operator_of("edge_perceptron_reference", {ends, weights, to_atoms})};
}

/// Centres with more edges than a vector holds, with few and with none.
Case angle_sums(at::ScalarType type, std::int64_t n_edges, bool ordered) {
  constexpr std::int64_t n_owned = 50, n_polynomials = 4, repeats = 3;
  Tensor centres = at::randint(n_owned, {n_edges}, at::TensorOptions(at::kLong));
  centres = centres * (centres < n_owned - 9);  // the first has ten times the edges of another
  if (ordered) centres = std::get<0>(centres.sort());
  const Tensor vectors = at::randn({n_edges, 3}, at::TensorOptions(type));
  const std::vector<IValue> rest = {centres, n_owned, n_polynomials};
  return {"angle_sums, " + std::to_string(n_edges) + " edges" + (ordered ? "" : " out of order"),
          {vectors / vectors.norm(2, 1, true), at::randn({n_edges, n_polynomials * repeats}, at::TensorOptions(type))},
          operator_of("angle_sums", rest),
          operator_of("angle_sums_reference", rest)};
}

/// Channels that no vector divides.
Case gated_addition(at::ScalarType type, std::int64_t n) {
  constexpr std::int64_t n_channels = 21, n_inputs = 5, n_rows = 800;
  const auto options = at::TensorOptions(type);
  const Tensor places = at::randperm(n_rows, at::TensorOptions(at::kLong)).narrow(0, 0, n);
  const std::vector<IValue> rest = {at::randn({n_inputs, 2 * n_channels}, options),
                                    at::randn({2 * n_channels}, options)};
  const auto of = [=](const std::string& name) -> Function {
    return [=](const Tensors& inputs) {
      std::vector<IValue> arguments = {inputs[0], places, inputs[1]};
      arguments.insert(arguments.end(), rest.begin(), rest.end());
      return tensors_of(call(name, arguments));
    };
  };
  return {"gated_addition, " + std::to_string(n) + " inputs",
          {at::randn({n_rows, n_channels}, options), at::randn({n, n_inputs}, options)},
          of("gated_addition"),
          of("gated_addition_reference")};
}

/// Heads that no vector divides; atoms with many edges, few and none.
Case token_attention(at::ScalarType type, std::int64_t n_edges) {
  constexpr std::int64_t n_heads = 2, width = 21, n_atoms = 50;
  const auto options = at::TensorOptions(type);
  const Tensor centres = std::get<0>(at::randint(n_atoms, {n_edges}, at::TensorOptions(at::kLong)).sort());
  const std::vector<IValue> rest = {centres, n_heads, 0.3};
  return {"token_attention, " + std::to_string(n_edges) + " edges",
          {at::randn({n_atoms + n_edges, 3 * n_heads * width}, options), at::randn({n_edges}, options)},
          operator_of("token_attention", rest),
          operator_of("token_attention_reference", rest)};
}

/// Channels that no vector divides.
Case feed_forward(at::ScalarType type, std::int64_t n, const std::string& norm, const std::string& activation) {
  constexpr std::int64_t n_inputs = 21, n_hidden = 13;
  const auto random = [&](at::IntArrayRef sizes) {
    return at::randn(sizes, at::TensorOptions(type)) / std::sqrt(sizes.front());
  };
  const std::int64_t n_sums = activation == "glu" ? 2 * n_hidden : n_hidden;
  const Tensors weights = {random({n_inputs, n_sums}), random({n_sums}), random({n_hidden, n_inputs}),
                           random({n_inputs})};
  const auto fused = operator_of("feed_forward", {weights, norm, 1e-5, activation, true, false});
  return {"feed_forward, " + std::to_string(n) + " rows, " + norm + ", " + activation,
          {at::randn({n, n_inputs}, at::TensorOptions(type))},
          [=](const Tensors& inputs) { return Tensors{fused(inputs)[0]}; },
          operator_of("feed_forward_reference", {weights, norm, 1e-5, activation, true})};
}

/// With SO3LR's constants. Distances on both sides of what switches on, and on that of the cutoff.
Case long_range_pairs(at::ScalarType type, std::int64_t n_edges, bool ordered) {
  constexpr std::int64_t n_nodes = 60, n_owned = 50;
  const std::vector<double> constants = {14.4, 4.0,      12.0,    5.4,     0.0833,   -0.0069, 10.0, 6.1,
                                         2.55, -0.00433, 0.24429, 0.04125, -0.00079, 0.529,   27.2};
  const auto options = at::TensorOptions(type);
  const auto index = at::TensorOptions(at::kLong);
  Tensor centres = at::randint(n_owned, {n_edges}, index);
  if (ordered) centres = std::get<0>(centres.sort());
  const std::vector<IValue> rest = {at::stack({centres, at::randint(n_nodes, {n_edges}, index)}), n_owned, constants};
  return {"long_range_pairs, " + std::to_string(n_edges) + " edges" + (ordered ? "" : " out of order"),
          {at::randn({n_nodes}, options), 3 + 8 * at::rand({n_nodes}, options), 5 + 60 * at::rand({n_nodes}, options),
           1 + 11.5 * at::rand({n_edges}, options)},
          operator_of("long_range_pairs", rest),
          operator_of("long_range_pairs_reference", rest)};
}

Case harmonics(at::ScalarType type, std::int64_t n_edges, std::int64_t l_max) {
  const Tensor vectors = at::randn({n_edges, 3}, at::TensorOptions(type));
  return {"edge_harmonics up to l = " + std::to_string(l_max) + ", " + std::to_string(n_edges) + " edges",
          {vectors / vectors.norm(2, 1, true) * (0.5 + 4.5 * at::rand({n_edges, 1}, at::TensorOptions(type)))},  // Å
          operator_of("edge_harmonics", {l_max}),
          operator_of("edge_harmonics_reference", {l_max})};
}

Case linear(at::ScalarType type, std::int64_t n_atoms) {
  const Tensor types = at::randint(3, {n_atoms}, at::TensorOptions(at::kLong));  // the fourth element is absent
  const Tensor matrices = at::randn({4, 5, 7}, at::TensorOptions(type));
  return {"element_linear, " + std::to_string(n_atoms) + " atoms",
          {at::randn({n_atoms, 3, 5}, at::TensorOptions(type))},
          operator_of("element_linear", {types, matrices}),
          [=](const Tensors& inputs) { return Tensors{at::matmul(inputs[0], matrices.index_select(0, types))}; }};
}

/// A block with two products, one with one and one with none. Channels that no vector divides.
Case equivariant_linear(at::ScalarType type, std::int64_t n_atoms, bool of_elements, bool as_rows, bool biased) {
  constexpr std::int64_t n_elements = 4;
  const auto options = at::TensorOptions(type);
  const std::vector<std::int64_t> blocks = {1, 37, 3, 21, 5, 2};  // components and channels
  const std::vector<std::int64_t> products = {0, 0, 0, 13, 1, 1, 0, 45, 2, 0, of_elements, 6};
  const std::int64_t own = 13 * 37 + 45 * 21, others = 6 * 37, width = 37 + 3 * 21 + 5 * 2;
  const auto pair = [&](const std::vector<std::pair<std::int64_t, std::int64_t>>& sizes, std::int64_t n) {
    Tensors matrices, transposed;  // [n, values] each
    for (const auto& [rows, columns] : sizes) {
      const Tensor matrix = at::randn({n, rows, columns}, options);
      matrices.push_back(matrix.flatten(1));
      transposed.push_back(matrix.transpose(1, 2).flatten(1));
    }
    return at::stack({at::cat(matrices, 1), at::cat(transposed, 1)}, 1);
  };
  std::vector<std::pair<std::int64_t, std::int64_t>> sizes = {{13, 37}, {45, 21}};
  if (!of_elements) sizes.emplace_back(6, 37);
  const Tensor types = at::randint(n_elements - 1, {n_atoms}, at::TensorOptions(at::kLong));  // the last one is absent
  const std::vector<IValue> rest = {
      types,
      pair(sizes, 1)[0],
      of_elements ? pair({{6, 37}}, n_elements) : at::empty({0, 2, 0}, options),
      biased ? at::randn({of_elements ? n_elements : 1, width}, options) : at::empty({0, 0}, options),
      blocks,
      products,
      as_rows};
  expect(rest[1].toTensor().size(1) == own + (of_elements ? 0 : others), "equivariant_linear: values of the matrices");
  const auto input = [&](std::int64_t components, std::int64_t channels) {
    return at::randn({n_atoms, components, channels}, options);
  };
  const auto listed = [=](const std::string& name) -> Function {
    return [=](const Tensors& inputs) {
      std::vector<IValue> stack = {inputs};
      stack.insert(stack.end(), rest.begin(), rest.end());
      return tensors_of(call(name, std::move(stack)));
    };
  };
  return {std::string("equivariant_linear, ") + std::to_string(n_atoms) + " atoms" + (of_elements ? ", elements" : "") +
              (as_rows ? ", as rows" : "") + (biased ? ", biased" : ""),
          {input(1, 13), input(3, 45), input(1, 6)},
          listed("equivariant_linear"),
          listed("equivariant_linear_reference")};
}

/// Scalars of every activation, and gates in another order than their values.
Case gate(at::ScalarType type, std::int64_t n_atoms) {
  const auto input = [&](std::int64_t components, std::int64_t channels) {
    return 3 * at::randn({n_atoms, components, channels}, at::TensorOptions(type));
  };
  std::vector<std::int64_t> pieces;
  std::vector<double> factors;
  for (std::int64_t activation = 0; activation < 6; ++activation) {
    for (const std::int64_t number : {activation, std::int64_t{19}, std::int64_t{0}, 19 * activation, std::int64_t{-1},
                                      std::int64_t{0}, std::int64_t{0}, 19 * (5 - activation)})
      pieces.push_back(number);
    factors.push_back(1.0 + 0.1 * static_cast<double>(activation));
  }
  for (const std::int64_t number : {1, 20, 1, 17, 2, 0, 1, 0, 2, 17, 1, 0, 2, 20, 1, 20}) pieces.push_back(number);
  factors.insert(factors.end(), {1.7, 0.6});
  const auto listed = [=](const std::string& name) -> Function {
    return [=](const Tensors& inputs) { return tensors_of(call(name, {inputs, pieces, factors})); };
  };
  return {"gate, " + std::to_string(n_atoms) + " atoms",
          {input(1, 6 * 19), input(1, 40), input(3, 37)},  // three scalars gate nothing
          listed("gate"),
          listed("gate_reference")};
}

/// Enough rows that every thread gets some, one row, and none.
std::vector<Case> cases(at::ScalarType type) {
  std::vector<Case> all;
  for (const bool tabulated : {false, true}) {
    for (const std::int64_t n_edges : {700, 1, 0}) all.push_back(tensor_product(type, n_edges, true, tabulated));
    all.push_back(tensor_product(type, 700, false, tabulated));
  }
  for (const bool weighted : {false, true}) {
    for (const std::int64_t n_edges : {700, 1, 0}) all.push_back(environment_product(type, n_edges, true, weighted));
    all.push_back(environment_product(type, 700, false, weighted));
  }
  for (const bool tabulated : {false, true}) {
    for (const std::int64_t n_edges : {700, 1, 0}) all.push_back(neighbour_attention(type, n_edges, true, tabulated));
    all.push_back(neighbour_attention(type, 700, false, tabulated));
  }
  for (const bool to_atoms : {false, true}) {
    for (const std::int64_t n_edges : {700, 1, 0}) all.push_back(edge_perceptron(type, n_edges, true, to_atoms));
    all.push_back(edge_perceptron(type, 700, false, to_atoms));
  }
  for (const std::int64_t n_edges : {700, 1, 0}) all.push_back(angle_sums(type, n_edges, true));
  all.push_back(angle_sums(type, 700, false));
  for (const std::int64_t n : {700, 1, 0}) all.push_back(gated_addition(type, n));
  for (const std::int64_t n_edges : {700, 1, 0}) all.push_back(token_attention(type, n_edges));
  for (const char* norm : {"none", "root_mean_square", "layer"})
    for (const char* activation : {"silu", "glu"})
      for (const std::int64_t n : {700, 1, 0}) all.push_back(feed_forward(type, n, norm, activation));
  for (const std::int64_t n_edges : {700, 1, 0}) all.push_back(long_range_pairs(type, n_edges, true));
  all.push_back(long_range_pairs(type, 700, false));
  for (const std::int64_t n_edges : {700, 1, 0}) all.push_back(so2_convolution(type, n_edges, true, 2, 2));
  all.push_back(so2_convolution(type, 700, false, 3, 1));
  all.push_back(so2_convolution(type, 200, true, 1, 0));
  for (std::int64_t degree = 1; degree <= 4; ++degree) all.push_back(contraction(type, 60, degree));
  for (const std::int64_t n_atoms : {1, 0}) all.push_back(contraction(type, n_atoms, 3));
  for (const bool odd : {false, true}) {
    for (const std::int64_t n_edges : {700, 1, 0}) all.push_back(symmetry_functions(type, n_edges, true, odd));
    all.push_back(symmetry_functions(type, 700, false, odd));
  }
  for (const std::int64_t l_max : {0, 3, 10}) all.push_back(harmonics(type, 1100, l_max));
  for (const std::int64_t n_edges : {1, 0}) all.push_back(harmonics(type, n_edges, 3));
  for (const std::int64_t n_atoms : {60, 1, 0}) all.push_back(linear(type, n_atoms));
  for (const bool of_elements : {false, true})
    for (const bool as_rows : {false, true})
      for (const bool biased : {false, true})
        for (const std::int64_t n_atoms : {300, 1, 0})
          all.push_back(equivariant_linear(type, n_atoms, of_elements, as_rows, biased));
  for (const std::int64_t n_atoms : {200, 1, 0}) all.push_back(gate(type, n_atoms));
  return all;
}

/// body(name) while that instruction set runs, for all that this processor has.
void with_each_instruction_set(const std::function<void(const std::string&)>& body) {
  std::vector<std::string> names;
  const IValue found = call("instruction_sets", {})[0];
  for (const IValue& name : found.toListRef()) names.push_back(name.toStringRef());
  for (const std::string& name : names) {
    call("use_instruction_set", {name});
    body(name);
  }
  call("use_instruction_set", {names[0]});
}

void test_kernels_equal_the_reference() {
  expect(at::get_num_threads() == n_threads, "threads of torch");
  for (const auto type : {at::kFloat, at::kDouble}) {
    for (const Case& each : cases(type)) {
      const Tensors expected = with_gradients(each.reference, each.inputs);
      with_each_instruction_set([&](const std::string& name) {
        expect_close(with_gradients(each.fused, each.inputs), expected,
                     each.name + ", " + c10::toString(type) + ", " + name);
      });
    }
  }
}

/// Rows that are part of longer ones times a packed matrix, in both of its orders; what lies beside them stays.
template <typename T>
void test_packed_product(const std::string& set) {
  const at::ScalarType type = c10::CppTypeToScalarType<T>::value;
  for (const std::int64_t n : {1, 2, 5, 6, 7, 8, 23})
    for (const std::int64_t inner : {1, 3, 256, 700})  // 700 are several blocks of rows of the matrix
      for (const std::int64_t columns : {1, 7, 16, 33, 100})
        for (const bool transposed : {false, true}) {
          const Tensor rows = at::randn({n, inner + 3}, type), before = at::randn({n, columns + 2}, type);
          const Tensor matrix = transposed ? at::randn({columns, inner}, type).t() : at::randn({inner, columns}, type);
          const Tensor product = at::matmul(rows.narrow(1, 1, inner).to(at::kDouble), matrix.to(at::kDouble));
          const mlip::PackedMatrix<T> packed(matrix);
          for (const bool add : {false, true}) {
            Tensor found = before.clone(), expected = before.to(at::kDouble);
            packed.multiply(n, rows.const_data_ptr<T>() + 1, inner + 3, found.data_ptr<T>() + 1, columns + 2, add,
                            T(-0.5));
            const Tensor part = expected.narrow(1, 1, columns);
            part.copy_(-0.5 * product + (add ? part : at::zeros_like(part)));
            expect_close({found}, {expected.to(type)},
                         set + ", " + std::to_string(n) + " rows times [" + std::to_string(inner) + ", " +
                             std::to_string(columns) + "]");
          }
        }
}

void test_packed_products() {
  with_each_instruction_set([](const std::string& name) {
    test_packed_product<float>(name);
    test_packed_product<double>(name);
  });
}

/// On a device for which an operator has no kernels it computes the same from torch's own operators, of that device.
void test_devices_without_kernels() {
  const auto moved = [](Tensors tensors, at::Device device) {
    for (Tensor& tensor : tensors) tensor = tensor.to(device);
    return tensors;
  };
  for (const Case& each : cases(at::kDouble)) {
    const Tensors found = with_gradients(each.fused, moved(each.inputs, mlip::testing::emulated_device));
    for (const Tensor& tensor : found)
      expect(tensor.device() == mlip::testing::emulated_device, each.name + ": results stay on the device");
    expect_close(moved(found, at::kCPU), with_gradients(each.reference, each.inputs), each.name + ", another device");
  }
}

/// As engines do that evaluate in threads of their own: no call may see the working memory of another.
void test_calls_side_by_side() {
  const std::vector<Case> all = cases(at::kDouble);
  std::vector<Tensors> expected, first(all.size()), second(all.size());
  for (const Case& each : all) expected.push_back(with_gradients(each.reference, each.inputs));
  const auto evaluate = [&](std::vector<Tensors>& results) {
    at::set_num_threads(n_threads);
    for (std::size_t k = 0; k < all.size(); ++k) results[k] = with_gradients(all[k].fused, all[k].inputs);
  };
  std::thread other([&] { evaluate(second); });
  evaluate(first);
  other.join();
  for (std::size_t k = 0; k < all.size(); ++k)
    for (const auto* results : {&first, &second})
      expect_close((*results)[k], expected[k], all[k].name + ", beside another call");
}

/// Every ghost is an image of atom 0.
class ImagesOfTheFirst : public mlip::Exchange {
 public:
  explicit ImagesOfTheFirst(std::int64_t n_ghosts) : n_ghosts_(n_ghosts) {}
  int n_calls = 0;
  std::int64_t n_ghosts() const override { return n_ghosts_; }
  void gather(const mlip::FeatureRows& rows) override {
    visit(rows, [](double& ghost, double& owner) { ghost = owner; });
  }
  void scatter_add(const mlip::FeatureRows& rows) override {
    visit(rows, [](double& ghost, double& owner) { owner += ghost; });
  }
  void sum(double*, std::int64_t) override { ++n_calls; }  // one rank

 private:
  template <typename Body>
  void visit(const mlip::FeatureRows& rows, Body&& body) {
    ++n_calls;
    auto* const values = static_cast<double*>(rows.data);
    for (std::int64_t k = rows.n_owned * rows.width; k < rows.n_nodes * rows.width; ++k)
      body(values[k], values[k % rows.width]);
  }

  std::int64_t n_ghosts_;
};

/// Forward on the model's thread, backward on another, as torch does on a GPU; the engine's thread communicates.
void test_ghosts_through_the_relay() {
  constexpr std::int64_t n_owned = 5, n_ghosts = 3;
  const Tensor x = at::randn({n_owned, 4}, at::TensorOptions(at::kDouble));
  const Tensor owners = at::cat({at::arange(n_owned), at::zeros({n_ghosts}, at::TensorOptions(at::kLong))});
  const Tensors expected =
      with_gradients([&](const Tensors& in) { return Tensors{in[0].index_select(0, owners)}; }, {x});
  ImagesOfTheFirst engine(n_ghosts);
  mlip::ExchangeRelay on_this_thread;
  constexpr int n_rounds = 20;
  for (int round = 0; round < n_rounds; ++round) {
    Tensor nodes, gradient;
    on_this_thread.run(engine, [&](mlip::Exchange& relay) {
      const mlip::ExchangeScope scope(&relay);
      const Tensor leaf = x.clone().requires_grad_();
      nodes = operator_of("ghost_gather", {n_owned + n_ghosts})({leaf})[0];
      const Tensor weights = at::arange(nodes.numel(), nodes.options()).cos().reshape(nodes.sizes());
      std::thread([&] { gradient = torch::autograd::grad({(nodes * weights).sum()}, {leaf})[0]; }).join();
    });
    expect_close({nodes.detach(), gradient}, expected, "ghost_gather through the relay");
  }
  expect(engine.n_calls == 2 * n_rounds, "the engine communicates in both passes");
}

/// Ghosts of some owned atoms, in rows of whole matrices or of lent atoms alone.
class LendingExchange : public mlip::Exchange {
 public:
  mlip::LentNodes lent_nodes{{1, 4}, nullptr};
  std::vector<std::int64_t> owner_of_ghost = {4, 1, 4};
  std::int64_t rows_moved = 0;
  double sum_factor = 1.0;  // what other ranks add to a sum

  std::int64_t n_ghosts() const override { return static_cast<std::int64_t>(owner_of_ghost.size()); }
  void gather(const mlip::FeatureRows& rows) override {
    visit(rows, [](double& ghost, double& owner) { ghost = owner; });
  }
  void scatter_add(const mlip::FeatureRows& rows) override {
    visit(rows, [](double& ghost, double& owner) { owner += ghost; });
  }
  void sum(double* values, std::int64_t n) override {
    for (std::int64_t k = 0; k < n; ++k) values[k] *= sum_factor;
  }
  mlip::LentNodes* lent() override { return &lent_nodes; }

 private:
  template <typename Body>
  void visit(const mlip::FeatureRows& rows, Body&& body) {
    rows_moved += rows.n_nodes;
    auto* const values = static_cast<double*>(rows.data);
    for (std::size_t k = 0; k < owner_of_ghost.size(); ++k) {
      const std::int64_t owner = rows.only_lent ? (owner_of_ghost[k] == 4) : owner_of_ghost[k];
      for (std::int64_t c = 0; c < rows.width; ++c)
        body(values[(rows.n_owned + static_cast<std::int64_t>(k)) * rows.width + c], values[owner * rows.width + c]);
    }
  }
};

/// What a GPU's features do, on the CPU: lent rows out and ghosts' rows in, and their transpose.
void test_lent_rows() {
  constexpr std::int64_t n_owned = 6, n_nodes = 9;
  LendingExchange engine;
  const Tensor x = at::randn({n_owned, 2, 3}, at::TensorOptions(at::kDouble));
  const Tensor gradient = at::randn({n_nodes, 2, 3}, at::TensorOptions(at::kDouble));
  const Tensor kept = gradient.clone();
  const Tensor owners =
      at::cat({at::arange(n_owned), at::from_blob(engine.owner_of_ghost.data(), {3}, at::kLong).clone()});
  for (int repeat = 0; repeat < 2; ++repeat) {
    const Tensor nodes = mlip::gather_lent(x, n_nodes, engine, engine.lent_nodes);
    const Tensor home = mlip::gather_lent_backward(gradient, n_owned, engine, engine.lent_nodes);
    expect_close({nodes, home}, {x.index_select(0, owners), at::zeros_like(x).index_add_(0, owners, gradient)},
                 "rows of lent atoms");
  }
  expect(gradient.equal(kept), "autograd's gradient stays as it was");
  expect(engine.rows_moved == 4 * (2 + 3), "no other rows reach the engine");

  // A rank without atoms, and one without ghosts.
  engine = {};
  engine.lent_nodes.nodes.clear();
  engine.owner_of_ghost.clear();
  for (const std::int64_t n : {0, 2}) {
    const Tensor own = x.narrow(0, 0, n);
    expect_close({mlip::gather_lent(own, n, engine, engine.lent_nodes),
                  mlip::gather_lent_backward(own, n, engine, engine.lent_nodes)},
                 {own, own}, "nothing lent");
  }
}

/// The same on a device: an exchange that has lent rows is never given whole matrices, in neither pass; sums go over
/// ranks. Autograd's backward pass is on a thread of its own there, which has no exchange.
void test_collectives_of_a_device() {
  constexpr std::int64_t n_owned = 6, n_nodes = 9;
  LendingExchange engine;
  const Tensor x = at::randn({n_owned, 4}, at::TensorOptions(at::kDouble));
  const Tensor owners =
      at::cat({at::arange(n_owned), at::from_blob(engine.owner_of_ghost.data(), {3}, at::kLong).clone()});
  const mlip::ExchangeScope scope(&engine);
  const auto compare = [&](const Function& function, const Function& expected, const std::string& what) {
    Tensors found = with_gradients(function, {x.to(mlip::testing::emulated_device)});
    for (Tensor& tensor : found) tensor = tensor.to(at::kCPU);
    expect_close(found, with_gradients(expected, {x}), what);
  };
  compare(
      operator_of("ghost_gather", {n_nodes}), [&](const Tensors& in) { return Tensors{in[0].index_select(0, owners)}; },
      "ghost_gather on a device");
  expect(engine.rows_moved == 2 * (2 + 3), "lent rows alone, from a device and back");
  compare(
      operator_of("sum_over_atoms", {}), [&](const Tensors& in) { return Tensors{engine.sum_factor * in[0].sum(0)}; },
      "sum_over_atoms on a device");
}

/// On a device a linear layer is a launch for each product, which writes its result where it belongs.
void test_launches_of_a_linear_layer() {
  for (const bool as_rows : {false, true}) {
    const Case each = equivariant_linear(at::kDouble, 5, false, as_rows, false);
    Tensors inputs;
    for (const Tensor& input : each.inputs) inputs.push_back(input.to(mlip::testing::emulated_device));
    each.fused(inputs);
    const mlip::testing::CountedOperators counted;
    const Tensors found = each.fused(inputs);
    const int products =
        counted["aten::mm"] + counted["aten::bmm"] + counted["aten::addmm_"] + counted["aten::baddbmm_"];
    expect(products == 3 && counted["aten::zero_"] == 1, each.name + ": three products, and a block without one");
    expect(counted["aten::empty"] == static_cast<int>(found.size()), each.name + ": no memory but the results'");
    expect(counted["aten::cat"] == 0 && counted["aten::add"] == 0, each.name + ": in place");
  }
}

/// On a GPU the host waits for the number of atoms of each element: once for the same types.
void test_atoms_by_element() {
  Tensor types = at::arange(12, at::kLong).remainder(3);
  const Tensor x = at::randn({12, 2, 4}, at::TensorOptions(at::kDouble));
  const Tensor matrices = at::randn({3, 4, 5}, at::TensorOptions(at::kDouble));
  const auto check = [&](const Tensor& of_types, int n_waits, const std::string& what) {
    const Tensor expected = at::matmul(x, matrices.index_select(0, of_types));
    const mlip::testing::CountedOperators counted;
    const Tensors found = operator_of("element_linear", {of_types, matrices})({x});
    expect(counted["aten::bincount"] == n_waits, what);
    expect_close(found, {expected}, "element_linear, " + what);
  };
  check(types, 1, "new types are counted");
  check(types, 0, "the same are not");
  check(types.narrow(0, 0, 12), 0, "nor a view of them");
  types.fill_(1);
  check(types, 1, "others in their place are");
  types = types.clone();
  check(types, 1, "a copy is");
}

}  // namespace

int main() {
  mlip::testing::start_emulated_device();
  at::set_num_threads(n_threads);
  at::manual_seed(7);
  test_kernels_equal_the_reference();
  test_packed_products();
  test_calls_side_by_side();
  test_devices_without_kernels();
  test_ghosts_through_the_relay();
  test_lent_rows();
  test_collectives_of_a_device();
  test_atoms_by_element();
  test_launches_of_a_linear_layer();
  return mlip::testing::report();
}

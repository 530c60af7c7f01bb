#include "model/program.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/passes/constant_propagation.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>
#include <torch/csrc/jit/passes/inliner.h>
#include <torch/csrc/jit/passes/loop_unrolling.h>
#include <torch/csrc/jit/passes/peephole.h>
#include <torch/csrc/jit/passes/peephole_list_idioms.h>
#include <torch/csrc/jit/passes/remove_mutation.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/script.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "core/native_operator.h"

namespace mlip {
namespace {

using at::Tensor;
using c10::IValue;
using torch::jit::Graph;
using torch::jit::Node;
using torch::jit::Value;
using Tensors = std::vector<Tensor>;

// Positions of the arguments of `forward`, without the module itself; the same are their slots.
constexpr std::size_t edge_vectors_argument = 3, settings_argument = 4;

using Slot = std::size_t;  ///< of a value that is made anew in every run

/// Where a step finds an argument: a constant, a slot, or a list of slots.
struct Source {
  IValue constant;
  std::vector<Slot> slots;
  bool is_list = false;

  bool is_constant() const { return slots.empty() && !is_list; }
};

/// The values of one run.
struct Frame {
  std::vector<IValue> values;     ///< by slot
  std::vector<Tensor> gradients;  ///< by slot; undefined for none
  bool with_gradients;
};

/// What a tensor that is no longer there looked like.
struct Shape {
  std::vector<std::int64_t> sizes;
  at::TensorOptions options;

  explicit Shape(const Tensor& tensor) : sizes(tensor.sizes().vec()), options(tensor.options()) {}
};

/// What a step leaves for its pass back.
struct Kept {
  NativeOperator::Kept native;
  std::vector<Shape> shapes;  ///< of a native operator's results, or of what a graph's results are views of
  Tensors inputs, outputs;    ///< of autograd's graph
  std::vector<Slot> slots;    ///< of the inputs
};

class Step {
 public:
  virtual ~Step() = default;
  virtual void forward(Frame& frame, Kept& kept) const = 0;
  virtual void backward(Frame& frame, Kept& kept) const = 0;

  std::vector<Slot> reads, writes;
  std::vector<Slot> last_reads;  ///< values that no later step reads
  bool differentiable = false;   ///< depends on the edge vectors
};

// ---- operators with a native form ----------------------------------------------------------------------------

class NativeStep : public Step {
 public:
  /// @param inputs tensors that it reads
  /// @param wanted [number of inputs]: whether their gradients are made
  /// @param count where the number of nodes is, of an operator that takes one
  NativeStep(std::unique_ptr<NativeOperator> op, std::vector<Slot> inputs, std::vector<bool> wanted,
             std::optional<Slot> count)
      : operator_(std::move(op)), inputs_(std::move(inputs)), wanted_(std::move(wanted)), count_(count) {}

  void forward(Frame& frame, Kept& kept) const override {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    Tensors inputs;
    inputs.reserve(inputs_.size());
    for (const Slot slot : inputs_) inputs.push_back(frame.values[slot].toTensor());
    const bool keep = frame.with_gradients && differentiable;
    Tensors outputs = operator_->forward(std::move(inputs), count_ ? frame.values[*count_].toInt() : 0,
                                         keep ? &kept.native : nullptr);
    if (keep && !with_all_gradients) kept.shapes = std::vector<Shape>(outputs.begin(), outputs.end());
    for (std::size_t k = 0; k < writes.size(); ++k) frame.values[writes[k]] = std::move(outputs[k]);
  }

  void backward(Frame& frame, Kept& kept) const override {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    Tensors gradients, sums(inputs_.size());
    gradients.reserve(writes.size());
    for (const Slot slot : writes) gradients.push_back(std::move(frame.gradients[slot]));
    if (std::none_of(gradients.begin(), gradients.end(), [](const Tensor& g) { return g.defined(); })) return;
    for (std::size_t k = 0; k < writes.size(); ++k)
      if (!gradients[k].defined()) gradients[k] = at::zeros(kept.shapes[k].sizes, kept.shapes[k].options);
    for (std::size_t k = 0; k < inputs_.size(); ++k)
      if (wanted_[k]) sums[k] = std::move(frame.gradients[inputs_[k]]);
    operator_->backward(gradients, kept.native, wanted_, sums);
    for (std::size_t k = 0; k < inputs_.size(); ++k)  // it may have read one tensor twice
      if (wanted_[k]) add_gradient(frame.gradients[inputs_[k]], std::move(sums[k]));
  }

  std::size_t n_outputs() const { return operator_->n_outputs(); }

  bool with_all_gradients = false;  ///< that of each result is sure to be there

 private:
  std::unique_ptr<NativeOperator> operator_;
  std::vector<Slot> inputs_;
  std::vector<bool> wanted_;
  std::optional<Slot> count_;
};

// ---- everything else -----------------------------------------------------------------------------------------

class TorchStep : public Step {
 public:
  /// @param arguments of the graph: constants and single slots
  /// @param viewed of a graph that only gives other shapes to tensors: the one that each result is a view of. Autograd
  ///        would take longer than all else. Empty for other graphs.
  TorchStep(const std::shared_ptr<Graph>& graph, std::vector<Source> arguments, std::set<Slot> wanted,
            std::vector<Slot> viewed)
      : executor_(graph, "program"),
        arguments_(std::move(arguments)),
        wanted_(std::move(wanted)),
        viewed_(std::move(viewed)) {}

  void forward(Frame& frame, Kept& kept) const override {
    const bool keep = frame.with_gradients && differentiable && viewed_.empty();
    if (frame.with_gradients && differentiable)
      for (const Slot slot : viewed_) kept.shapes.emplace_back(frame.values[slot].toTensor());
    const c10::AutoGradMode grad_mode(keep);
    std::map<Slot, Tensor> leaves;
    const auto value_of = [&](Slot slot) -> IValue {
      if (!keep || wanted_.count(slot) == 0 || !frame.values[slot].toTensor().is_floating_point())
        return frame.values[slot];
      Tensor& leaf = leaves[slot];
      if (!leaf.defined()) leaf = frame.values[slot].toTensor().detach().requires_grad_(true);
      return leaf;
    };
    std::vector<IValue> stack;
    for (const Source& argument : arguments_)
      stack.push_back(argument.is_constant() ? argument.constant : value_of(argument.slots[0]));
    executor_.run(stack);
    for (std::size_t k = 0; k < writes.size(); ++k) {
      IValue& value = stack[k];
      if (keep) kept.outputs.push_back(value.isTensor() ? value.toTensor() : Tensor());
      frame.values[writes[k]] =
          keep && value.isTensor() && value.toTensor().requires_grad() ? IValue(value.toTensor().detach()) : value;
    }
    for (const auto& [slot, leaf] : leaves) {
      kept.slots.push_back(slot);
      kept.inputs.push_back(leaf);
    }
  }

  void backward(Frame& frame, Kept& kept) const override {
    if (!viewed_.empty()) return backward_of_views(frame, kept);
    Tensors outputs, gradients;
    for (std::size_t k = 0; k < writes.size(); ++k) {
      Tensor gradient = std::move(frame.gradients[writes[k]]);
      if (!gradient.defined() || !kept.outputs[k].requires_grad()) continue;
      outputs.push_back(kept.outputs[k]);
      gradients.push_back(std::move(gradient));
    }
    if (outputs.empty()) return;
    const Tensors found = torch::autograd::grad(outputs, kept.inputs, gradients, /*retain_graph=*/false,
                                                /*create_graph=*/false, /*allow_unused=*/true);
    for (std::size_t k = 0; k < found.size(); ++k)
      if (found[k].defined()) add_gradient(frame.gradients[kept.slots[k]], found[k]);
  }

 private:
  void backward_of_views(Frame& frame, Kept& kept) const {
    for (std::size_t k = 0; k < writes.size(); ++k) {
      Tensor gradient = std::move(frame.gradients[writes[k]]);
      if (gradient.defined() && wanted_.count(viewed_[k]) > 0)
        add_gradient(frame.gradients[viewed_[k]], gradient.reshape(kept.shapes[k].sizes));
    }
  }

  mutable torch::jit::GraphExecutor executor_;
  std::vector<Source> arguments_;
  std::set<Slot> wanted_;  ///< of what it reads: whose gradients are, unless it holds integers
  std::vector<Slot> viewed_;
};

// ---- from a graph to steps -----------------------------------------------------------------------------------

/// The graph is not one that a program can run.
struct NotAProgram {};

bool is_tensor(const Value& value) { return value.type()->kind() == c10::TypeKind::TensorType; }

bool may_hold_tensors(const c10::Type& type) {
  const auto parts = type.containedTypes();
  return type.kind() == c10::TypeKind::TensorType || type.kind() == c10::TypeKind::AnyType ||
         type.kind() == c10::TypeKind::ClassType ||
         std::any_of(parts.begin(), parts.end(), [](const c10::TypePtr& part) { return may_hold_tensors(*part); });
}

/// Nodes inside a node's blocks too.
template <typename Body>
void for_nodes(torch::jit::Block& block, const Body& body) {
  for (Node* const node : block.nodes()) {
    body(node);
    for (torch::jit::Block* const inner : node->blocks()) for_nodes(*inner, body);
  }
}

/// What a node of the top level reads, in its blocks too.
std::vector<Value*> reads_of(Node* node) {
  const torch::jit::Block* const top = node->owningBlock();
  std::vector<Value*> found;
  const auto add = [&](at::ArrayRef<Value*> values) {
    for (Value* const value : values)
      if (value->node()->owningBlock() == top) found.push_back(value);
  };
  add(node->inputs());
  for (torch::jit::Block* const block : node->blocks()) {
    for_nodes(*block, [&](Node* inner) {
      add(inner->inputs());
      for (torch::jit::Block* const innermost : inner->blocks()) add(innermost->outputs());
    });
    add(block->outputs());
  }
  return found;
}

Value* detached(Value* value) {
  while (value->node()->kind() == c10::aten::detach) value = value->node()->input(0);
  return value;
}

/// Of a list that is written down where it is used.
Value* only_element(Value* list) {
  if (list->node()->kind() != c10::prim::ListConstruct || list->node()->inputs().size() != 1) throw NotAProgram();
  return list->node()->input(0);
}

/// Of `forward`, its graph of the energies and, where it gives them, the features: as functions of its own arguments,
/// without the pass back, which a program has of its own.
///
/// `forward` is what EdgeGradientModel of python/mlip_deploy/exporters/interface.py makes of an energy model: it
/// differentiates the sum of the energies by a copy of its edge vectors.
std::shared_ptr<Graph> graph_of_energies(const torch::jit::Method& forward) {
  std::shared_ptr<Graph> graph = forward.graph()->copy();
  torch::jit::Inline(*graph);
  std::vector<Node*> derivatives;
  for_nodes(*graph->block(), [&](Node* node) {
    if (node->kind() == at::Symbol::fromQualString("aten::grad")) derivatives.push_back(node);
  });
  Node* const results = graph->outputs()[0]->node();
  if (derivatives.size() != 1 || results->kind() != c10::prim::TupleConstruct || results->inputs().size() < 2 ||
      results->inputs().size() > 3 || graph->inputs().size() < 5 || graph->inputs().size() > 6)
    throw NotAProgram();
  Value* const energies = detached(results->input(0));
  Value* const copy = only_element(derivatives[0]->input(1));
  Value* const vectors = graph->inputs()[1 + edge_vectors_argument];
  Node* const sum = only_element(derivatives[0]->input(0))->node();
  if (sum->kind() != c10::aten::sum || sum->inputs().size() != 2 || sum->input(0) != energies ||
      copy->node()->kind() != at::Symbol::fromQualString("aten::requires_grad_") ||
      detached(copy->node()->input(0)) != vectors || vectors->uses().size() != 1)
    throw NotAProgram();
  Value* const features = results->inputs().size() == 3 ? results->input(2) : nullptr;
  graph->eraseOutput(0);
  graph->registerOutput(energies);
  if (features != nullptr) graph->registerOutput(features);
  copy->replaceAllUsesWith(vectors);
  copy->node()->destroy();
  torch::jit::EliminateDeadCode(graph);
  if (graph->inputs().size() > 1 + settings_argument)  // which are there where they are read
    graph->inputs()[1 + settings_argument]->setType(c10::TensorType::get());
  // Lists become what they hold, so that a step may take a single tensor out of one.
  for (bool changed = true; changed;) {
    torch::jit::PeepholeOptimize(graph);
    torch::jit::ConstantPropagation(graph);
    changed = torch::jit::UnrollConstantLoops(graph);
    changed = torch::jit::RemoveListMutation(graph) || changed;
    changed = torch::jit::PeepholeOptimizeListIdioms(graph) || changed;
  }
  torch::jit::EliminateDeadCode(graph);
  return graph;
}

class Compiler {
 public:
  Compiler(const torch::jit::Method& forward, at::Device device) : graph_(graph_of_energies(forward)), device_(device) {
    const auto arguments = graph_->inputs();
    sources_[arguments[0]] = {IValue(forward.owner()._ivalue()), {}, false};
    for (std::size_t k = 1; k < arguments.size(); ++k) make_slot(arguments[k], -1);
    differentiable_[edge_vectors_argument] = true;
    check_for_side_effects();
    for (Node* const node : graph_->nodes()) read(node);
    if (std::none_of(items_.begin(), items_.end(), [](const Item& item) { return item.native != nullptr; }))
      throw NotAProgram();
    energies_ = slot_of(graph_->outputs()[0]);
    if (graph_->outputs().size() > 1) features_ = slot_of(graph_->outputs()[1]);
    put_in_order();
    find_gradients();
    find_last_reads();
  }

  std::vector<std::unique_ptr<Step>> steps;
  std::size_t n_slots() const { return differentiable_.size(); }
  Slot energies() const { return energies_; }
  std::optional<Slot> features() const { return features_; }

 private:
  /// A node that is not merely a name for something.
  struct Item {
    Node* node;
    std::unique_ptr<NativeStep> native;  ///< null for torch's
    std::vector<Slot> reads, writes;
    bool done = false;
  };

  Slot make_slot(const Value* value, int item) {
    const Slot slot = differentiable_.size();
    differentiable_.push_back(false);
    made_by_.push_back(item);
    sources_[value] = {IValue(), {slot}, false};
    return slot;
  }

  Slot slot_of(const Value* value) const {
    const Source& source = sources_.at(value);
    if (source.is_list || source.slots.size() != 1) throw NotAProgram();
    return source.slots[0];
  }

  /// Steps come in another order than the graph's nodes: nothing may be written in place, and nothing else may happen.
  void check_for_side_effects() const {
    for_nodes(*graph_->block(), [&](const Node* node) {
      const auto* const schema = node->maybeSchema();
      if (node->hasSideEffects() || (schema != nullptr && schema->is_mutable())) throw NotAProgram();
    });
  }

  // ---- reading the nodes, in their order

  void read(Node* node) {
    if (read_name(node)) return;
    const int number = static_cast<int>(items_.size());
    items_.push_back({node, read_native(node), {}, {}});
    Item& item = items_.back();
    bool differentiable = false;
    for (const Value* const value : reads_of(node))
      for (const Slot slot : sources_.at(value).slots) {
        item.reads.push_back(slot);
        differentiable = differentiable || differentiable_[slot];
      }
    make_outputs(item, number, differentiable);
  }

  void make_outputs(Item& item, int number, bool differentiable) {
    for (const Value* const output : item.node->outputs()) {
      const std::size_t n = item.native && !is_tensor(*output) ? item.native->n_outputs() : 1;
      Source source{IValue(), {}, item.native && !is_tensor(*output)};
      for (std::size_t k = 0; k < n; ++k) {
        source.slots.push_back(make_slot(output, number));
        differentiable_[source.slots.back()] = differentiable && may_hold_tensors(*output->type());
      }
      item.writes.insert(item.writes.end(), source.slots.begin(), source.slots.end());
      sources_[output] = source;
    }
  }

  /// Whether a node gives another name to what is there.
  bool read_name(Node* node) {
    const auto constant = [&](const Value* value) { return sources_.at(value).is_constant(); };
    if (node->kind() == c10::prim::Constant) {
      sources_[node->output()] = {*torch::jit::toIValue(node->output()), {}, false};
    } else if (node->kind() == c10::prim::GetAttr && constant(node->input())) {
      const auto object = sources_.at(node->input()).constant.toObject();
      sources_[node->output()] = {object->getAttr(node->s(c10::attr::name)), {}, false};
    } else if (node->kind() == c10::prim::ListConstruct) {
      return read_list(node);
    } else if (node->kind() == c10::aten::add && sources_.at(node->input(0)).is_list &&
               sources_.at(node->input(1)).is_list) {
      Source both = sources_.at(node->input(0));
      const std::vector<Slot>& others = sources_.at(node->input(1)).slots;
      both.slots.insert(both.slots.end(), others.begin(), others.end());
      sources_[node->output()] = both;
    } else if (node->kind() == c10::aten::__getitem__ && sources_.at(node->input(0)).is_list &&
               constant(node->input(1))) {
      const std::vector<Slot>& slots = sources_.at(node->input(0)).slots;
      const std::int64_t index = sources_.at(node->input(1)).constant.toInt();
      const std::int64_t n = static_cast<std::int64_t>(slots.size()), place = index < 0 ? index + n : index;
      if (place < 0 || place >= n) throw NotAProgram();
      sources_[node->output()] = {IValue(), {slots[place]}, false};
    } else {
      return false;
    }
    return true;
  }

  bool read_list(Node* node) {
    std::vector<const Source*> elements;
    for (const Value* const value : node->inputs()) elements.push_back(&sources_.at(value));
    const auto element_type = node->output()->type()->expectRef<c10::ListType>().getElementType();
    if (element_type->kind() == c10::TypeKind::TensorType) {
      Source list{IValue(), {}, true};
      for (const Source* const element : elements) {
        if (element->is_list || element->slots.size() != 1) return false;
        list.slots.push_back(element->slots[0]);
      }
      sources_[node->output()] = list;
      return true;
    }
    c10::impl::GenericList values(element_type);
    for (const Source* const element : elements) {
      if (!element->is_constant()) return false;
      values.push_back(element->constant);
    }
    IValue constant;
    if (element_type->kind() == c10::TypeKind::IntType)
      constant = c10::impl::toTypedList<std::int64_t>(values);
    else if (element_type->kind() == c10::TypeKind::FloatType)
      constant = c10::impl::toTypedList<double>(values);
    else
      return false;
    sources_[node->output()] = {constant, {}, false};
    return true;
  }

  std::unique_ptr<NativeStep> read_native(Node* node) const {
    const NativeFactory factory = find_native(node->kind().toQualString());
    if (factory == nullptr) return nullptr;
    std::vector<IValue> constants;
    std::vector<Slot> inputs;
    std::vector<bool> wanted;
    std::optional<Slot> count;
    for (const Value* const value : node->inputs()) {
      const Source& source = sources_.at(value);
      constants.push_back(source.constant);
      if (source.is_constant()) continue;
      if (value->type()->kind() == c10::TypeKind::IntType)
        count = source.slots[0];
      else if (source.is_list || is_tensor(*value))
        inputs.insert(inputs.end(), source.slots.begin(), source.slots.end());
      else
        return nullptr;
    }
    for (const Slot slot : inputs) wanted.push_back(differentiable_[slot]);
    auto made = factory(constants, device_);
    if (made == nullptr) return nullptr;
    return std::make_unique<NativeStep>(std::move(made), std::move(inputs), std::move(wanted), count);
  }

  // ---- steps

  /// Operators with a native form stay in their order, since some of them exchange features with other ranks. What they
  /// and the results need of torch's comes as late as it can, so that it takes memory no longer than it has to; what
  /// does not depend on edges comes at once.
  void put_in_order() {
    std::vector<int> before;
    std::set<int> of_edges;
    for (int k = 0; k < static_cast<int>(items_.size()); ++k) {
      const Item& item = items_[k];
      const bool apart = !item.native && std::none_of(item.reads.begin(), item.reads.end(), [&](Slot slot) {
        return differentiable_[slot] || of_edges.count(made_by_[slot]) > 0;
      });
      if (apart)
        before.push_back(k);
      else
        of_edges.insert(k);
    }
    add_torch_step(before);
    for (Item& item : items_) {
      if (!item.native) continue;
      add_torch_step(what_is_needed(item.reads));
      item.done = true;
      item.native->reads = item.reads;
      item.native->writes = item.writes;
      steps.push_back(std::move(item.native));
    }
    std::vector<Slot> results{energies_};
    if (features_) results.push_back(*features_);
    add_torch_step(what_is_needed(results));
  }

  /// Items of torch's that are not done and that `slots` depend on, in order.
  std::vector<int> what_is_needed(const std::vector<Slot>& slots) const {
    std::set<int> found;
    std::vector<Slot> open = slots;
    while (!open.empty()) {
      const int item = made_by_[open.back()];
      open.pop_back();
      if (item < 0 || items_[item].done || !found.insert(item).second) continue;
      open.insert(open.end(), items_[item].reads.begin(), items_[item].reads.end());
    }
    return {found.begin(), found.end()};
  }

  void add_torch_step(const std::vector<int>& numbers) {
    if (numbers.empty()) return;
    const auto graph = std::make_shared<Graph>();
    std::map<const Value*, Value*> constants;  // from the model's graph to this one
    std::map<Slot, Value*> values;
    std::vector<Source> arguments;
    const auto argument = [&](const Source& source, const c10::TypePtr& type) {
      arguments.push_back(source);
      return graph->addInput()->setType(type);
    };
    const auto value_of = [&](Slot slot, const c10::TypePtr& type) {
      Value*& value = values[slot];
      if (value == nullptr) value = argument({IValue(), {slot}, false}, type);
      return value;
    };
    const auto value_in = [&](Value* value) {
      const Source& source = sources_.at(value);
      if (source.is_constant()) {
        Value*& constant = constants[value];
        if (constant == nullptr) constant = argument(source, value->type());
        return constant;
      }
      if (!source.is_list) return value_of(source.slots[0], value->type());
      std::vector<Value*> elements;  // some of which this very graph may make
      for (const Slot slot : source.slots) elements.push_back(value_of(slot, c10::TensorType::get()));
      return graph->appendNode(graph->createList(c10::TensorType::get(), elements))->output();
    };
    std::set<Slot> made, read;
    for (const int number : numbers) {
      Item& item = items_[number];
      item.done = true;
      made.insert(item.writes.begin(), item.writes.end());
      for (const Slot slot : item.reads)
        if (made.count(slot) == 0) read.insert(slot);
      Node* const clone = graph->appendNode(graph->createClone(item.node, value_in));
      for (std::size_t k = 0; k < item.writes.size(); ++k) values[item.writes[k]] = clone->output(k);
    }
    std::vector<Slot> writes;
    for (const int number : numbers)
      for (std::size_t k = 0; k < items_[number].writes.size(); ++k) {
        const Slot slot = items_[number].writes[k];
        if (!is_read_later(slot)) continue;
        // Gradients are of tensors: those of a list that torch's operators make would be lost from step to step.
        if (differentiable_[slot] && !is_tensor(*values.at(slot))) throw NotAProgram();
        writes.push_back(slot);
        graph->registerOutput(values.at(slot));
      }
    std::set<Slot> wanted;
    for (const Slot slot : read)
      if (differentiable_[slot]) wanted.insert(slot);
    auto step = std::make_unique<TorchStep>(graph, std::move(arguments), std::move(wanted), viewed(numbers, writes));
    step->reads.assign(read.begin(), read.end());
    step->writes = std::move(writes);
    steps.push_back(std::move(step));
  }

  static bool gives_another_shape(const Node& node) {
    const c10::Symbol kind = node.kind();
    if (kind == c10::aten::view)  // which may also read the same bits as another type
      return node.input(1)->type()->kind() == c10::TypeKind::ListType;
    return kind == c10::aten::squeeze || kind == c10::aten::unsqueeze || kind == c10::aten::flatten ||
           kind == c10::aten::reshape;
  }

  /// What each of `writes` is a view of; empty where an item does more than to give a tensor another shape.
  std::vector<Slot> viewed(const std::vector<int>& numbers, const std::vector<Slot>& writes) const {
    std::map<Slot, Slot> roots;
    for (const int number : numbers) {
      const Item& item = items_[number];
      if (!gives_another_shape(*item.node) || sources_.at(item.node->input(0)).slots != item.reads) return {};
      const auto root = roots.find(item.reads[0]);
      roots[item.writes[0]] = root != roots.end() ? root->second : item.reads[0];
    }
    std::vector<Slot> found;
    for (const Slot slot : writes) found.push_back(roots.at(slot));
    return found;
  }

  bool is_read_later(Slot slot) const {
    return slot == energies_ || slot == features_ || std::any_of(items_.begin(), items_.end(), [&](const Item& item) {
             return !item.done && std::count(item.reads.begin(), item.reads.end(), slot) > 0;
           });
  }

  /// Which steps have a pass back: those between the edge vectors and the energies.
  void find_gradients() {
    std::set<Slot> possible{energies_}, sure{energies_};
    const auto is_in = [](const std::set<Slot>& slots) { return [&](Slot slot) { return slots.count(slot) > 0; }; };
    for (std::size_t k = steps.size(); k-- > 0;) {
      Step& step = *steps[k];
      step.differentiable =
          std::any_of(step.writes.begin(), step.writes.end(), is_in(possible)) &&
          std::any_of(step.reads.begin(), step.reads.end(), [&](Slot s) { return differentiable_[s]; });
      if (!step.differentiable) continue;
      auto* const native = dynamic_cast<NativeStep*>(&step);
      if (native != nullptr)
        native->with_all_gradients = std::all_of(step.writes.begin(), step.writes.end(), is_in(sure));
      for (const Slot slot : step.reads) {
        if (!differentiable_[slot]) continue;
        possible.insert(slot);
        if (native != nullptr && native->with_all_gradients) sure.insert(slot);
      }
    }
  }

  void find_last_reads() {
    std::set<Slot> read{energies_};
    if (features_) read.insert(*features_);
    for (std::size_t k = steps.size(); k-- > 0;) {
      for (const std::vector<Slot>* const slots : {&steps[k]->reads, &steps[k]->writes})
        for (const Slot slot : *slots)
          if (read.insert(slot).second) steps[k]->last_reads.push_back(slot);
    }
  }

  std::shared_ptr<Graph> graph_;
  at::Device device_;
  std::map<const Value*, Source> sources_;
  std::vector<bool> differentiable_;  // by slot
  std::vector<int> made_by_;          // by slot: the item, or -1 for an argument
  std::vector<Item> items_;
  Slot energies_ = 0;
  std::optional<Slot> features_;
};

class Steps : public Program {
 public:
  explicit Steps(Compiler compiled)
      : steps_(std::move(compiled.steps)),
        n_slots_(compiled.n_slots()),
        energies_(compiled.energies()),
        features_(compiled.features()) {}

  ModelOutputs run(std::vector<IValue> inputs, const Tensor& settings, bool only_energies) const override {
    const c10::NoGradGuard no_grad;
    const Tensor edge_vectors = inputs[edge_vectors_argument].toTensor();
    Frame frame{std::move(inputs), Tensors(n_slots_), !only_energies};
    frame.values.resize(n_slots_);
    if (settings.defined()) frame.values[settings_argument] = settings;
    std::vector<Kept> kept(steps_.size());
    for (std::size_t k = 0; k < steps_.size(); ++k) {
      steps_[k]->forward(frame, kept[k]);
      for (const Slot slot : steps_[k]->last_reads) frame.values[slot] = IValue();
    }
    ModelOutputs results;
    results.energies = frame.values[energies_].toTensor();
    if (features_) results.features = frame.values[*features_].toTensor();
    if (only_energies) return results;
    frame.values.clear();
    frame.gradients[energies_] = at::ones_like(results.energies);
    for (std::size_t k = steps_.size(); k-- > 0;) {
      if (steps_[k]->differentiable) steps_[k]->backward(frame, kept[k]);
      kept[k] = {};
    }
    const Tensor& found = frame.gradients[edge_vectors_argument];
    results.edge_gradients = found.defined() ? found : at::zeros_like(edge_vectors);
    return results;
  }

 private:
  std::vector<std::unique_ptr<Step>> steps_;
  std::size_t n_slots_;
  Slot energies_;
  std::optional<Slot> features_;
};

}  // namespace

std::unique_ptr<Program> Program::of(const torch::jit::Method& forward, at::Device device) {
  try {
    return std::make_unique<Steps>(Compiler(forward, device));
  } catch (const NotAProgram&) {
    return nullptr;
  }
}

}  // namespace mlip

// A step of a simulation: from an engine's positions to energies, forces and virials. What every engine shell calls.
//
// Between two searches for neighbours only positions go in and only sums over edges come out. On the CPU the edges are
// written into a Graph, as graph.h says. On a GPU candidates, edges and gradients stay in its memory (device_step.cpp):
// a step moves 24 bytes per atom up and the asked-for values of atoms down, and nothing per edge.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/close_pair.h"
#include "core/exchange.h"
#include "core/graph.h"
#include "model/model.h"

namespace mlip {

/// What a step is to give beside atomic energies. Without any of the first four the back end may leave out its backward
/// pass.
struct StepRequest {
  bool forces = true;
  bool virial = false;
  bool atom_virials = false;
  bool centroid_virials = false;  ///< with messages a step then costs about three
  bool extras = false;
  bool features = false;  ///< with them, grades or uncertainties a back end takes its whole step
  bool grades = false;
  bool uncertainties = false;  ///< of energies
  bool close_pair = false;     ///< atoms on top of each other; it costs no backward pass

  bool gradients() const { return forces || virial || atom_virials || centroid_virials; }
  EvaluationRequest of_model() const { return {gradients(), features, grades, uncertainties}; }
};

/// In float64. What was not asked for is empty, or zero. Signs as in graph.h.
struct StepResult {
  std::int64_t n_edges = 0;
  ClosePair close_pair;                  ///< the worst one; known before the model runs, and so also where that throws
  std::vector<double> atomic_energies;   ///< [n_owned] eV
  std::vector<double> forces;            ///< [n_nodes, 3] eV/Å; those on ghosts belong to their owners
  std::array<double, 9> virial{};        ///< W = -Σ r_ij ⊗ g_ij, eV, row-major 3x3
  std::vector<double> atom_virials;      ///< [n_nodes, 6] eV, xx, yy, zz, xy, xz, yz; they add up to W
  std::vector<double> centroid_virials;  ///< [n_nodes, 9] eV, xx, yy, zz, xy, xz, yz, yx, zx, zy; likewise
  std::string centroid_virials_inexact;  ///< why only their sum is exact, not each as a heat flux needs it; "" if it is
  std::vector<std::vector<double>> extras;  ///< of each of the contract's extras, [n_owned] in its own unit
  std::vector<double> features;             ///< [n_owned, the contract's features], of what enters the read-out
  std::vector<double> grades;               ///< [n_owned]: how far from the model's domain (model/domain.h)
  std::vector<double> uncertainties;        ///< [n_owned] eV, of each atom's energy alone (likewise)
  double energy_uncertainty = 0.0;          ///< eV, of the energy of all atoms, those of other ranks too

  /// Back to nothing; buffers keep their capacity.
  void clear();
};

/// Where candidates become edges.
enum class EdgesOn {
  by_model,  ///< on the CPU for a model on the CPU, on the device for any other
  host,      ///< always on the CPU
  device     ///< by tensor operations on the model's device, a CPU too
};

/// @throws Error for a name that is none of "auto" (by_model), "host", "device".
EdgesOn parse_edges_on(const std::string& name);

bool makes_edges_on_device(const Model& model, EdgesOn edges_on);

/// Steps for an engine that keeps its positions in the memory of the model's device, as OpenMM's CUDA platform does.
///
/// Who writes positions or reads forces there sees to it that the device has done so before the next call, and before
/// theirs: these functions return when the device is done. Candidates are set as for any step, from a copy on the host.
class InPlaceStep {
 public:
  virtual ~InPlaceStep() = default;
  /// Address of float64 [engine atoms, 3], Å, to be written before each step. It stays.
  virtual double* positions() = 0;
  /// How far the positions are from those that candidates were set for, at the most. NaN if any of them is.
  /// @param deformation of the cell since then, as for mlip::FarthestMove
  /// @return Å
  virtual double farthest_move(const std::array<double, 9>& deformation) = 0;
  /// As StepEvaluator::evaluate, from those positions, which must be finite. `result.forces` stay empty.
  virtual void evaluate_in_place(const StepRequest& wanted, StepResult& result) = 0;
  /// Address of float64 [n_nodes, 3], eV/Å, of the last step with forces. They stay until the next one.
  virtual const double* forces() const = 0;
};

/// How a step is taken: one class on the CPU (host_step.cpp), one on the model's device (device_step.cpp).
class StepImplementation {
 public:
  virtual ~StepImplementation() = default;
  virtual void set_candidates(const CandidateEdges& candidates, const std::vector<std::int64_t>& node_types,
                              std::int64_t n_owned) = 0;
  virtual void set_shifts(const CandidateEdges& candidates) = 0;
  virtual std::int64_t count_edges(const double* positions, double length_in_angstrom) = 0;
  virtual void evaluate(const double* positions, double length_in_angstrom, const StepRequest& wanted,
                        Exchange* exchange, StepResult& result) = 0;
  /// For a model that takes positions, before the first evaluation and where the cell has changed.
  virtual void set_cell(const Cell& cell) = 0;
  virtual double bytes() const = 0;
  virtual InPlaceStep* in_place(std::int64_t n_atoms) = 0;
};

class StepEvaluator {
 public:
  /// @param model must outlive this object
  explicit StepEvaluator(Model& model, EdgesOn edges_on = EdgesOn::by_model);
  ~StepEvaluator();

  /// Once per search for neighbours.
  /// @param candidates must stay as it is until the next call, but for what `set_shifts` is told of
  /// @param node_types [n_nodes] type index in the contract's element list, owned nodes first
  void set_candidates(const CandidateEdges& candidates, const std::vector<std::int64_t>& node_types,
                      std::int64_t n_owned);

  /// Where the shifts of those candidates are others since, and nothing else of them.
  void set_shifts() { implementation_->set_shifts(*candidates_); }

  /// The engine's cell, before each evaluation for which it may be another one; models that take no positions ignore
  /// it.
  /// @throws Error for a cell without the periodicity that the model needs
  void set_cell(const Cell& cell);

  /// Edges inside the cutoff: how large a step will be.
  std::int64_t count_edges(const double* positions, double length_in_angstrom);

  /// @param positions [engine atoms, 3], engine length units; null if there are none
  /// @param length_in_angstrom Å per engine length unit
  /// @param exchange as for Model::evaluate
  /// @return valid until the next call
  /// @throws Error for positions or energies that are not finite, virials of atoms that the model does not have, and
  ///         what Model::evaluate throws.
  const StepResult& evaluate(const double* positions, double length_in_angstrom, const StepRequest& wanted,
                             Exchange* exchange = nullptr);

  /// Of the last evaluation.
  const StepResult& result() const { return result_; }

  /// For positions in the memory of the model's device. Called once, before the first candidates are set.
  /// @return of this object; null where edges are made on the host
  InPlaceStep* in_place(std::int64_t n_atoms) { return implementation_->in_place(n_atoms); }

  /// Memory in use for edges, their gradients and results, bytes; on a GPU for candidates too, those on the CPU are the
  /// caller's.
  double bytes() const;

 private:
  void check_positions(const double* positions) const;
  StepImplementation& moment_step();

  Model& model_;
  std::unique_ptr<StepImplementation> implementation_;
  std::unique_ptr<StepImplementation> moment_step_;  // made for the first step that asks for centroid virials
  bool moment_step_is_set_ = false;                  // to the candidates
  const CandidateEdges* candidates_ = nullptr;
  std::vector<std::int64_t> node_types_;
  std::int64_t n_owned_ = 0;
  StepResult result_;
};

}  // namespace mlip

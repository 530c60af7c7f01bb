// Python module mlip_deploy._core: evaluate an artifact from NumPy arrays. Holds no torch type.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <chrono>

#include "core/contract.h"
#include "core/error.h"
#include "core/model.h"
#include "core/neighbours.h"
#include "core/units.h"

namespace py = pybind11;

namespace {

using DoubleArray = py::array_t<double, py::array::c_style | py::array::forcecast>;
using IntArray = py::array_t<std::int64_t, py::array::c_style | py::array::forcecast>;

/// A model with its own neighbour list and buffers: energy, forces and virial of whole structures.
class Potential {
 public:
  Potential(const std::string& path, const std::string& device, int threads) : model_(path, {device, threads}) {}

  py::dict compute(const DoubleArray& positions, const IntArray& types, const DoubleArray& cell,
                   const std::array<bool, 3>& periodic, bool with_extras) {
    const auto n_atoms = static_cast<std::int64_t>(types.size());
    if (positions.ndim() != 2 || positions.shape(1) != 3 || positions.shape(0) != n_atoms)
      throw mlip::Error("positions must have shape [n_atoms, 3] and types [n_atoms]");
    if (cell.size() != 9) throw mlip::Error("cell must have shape [3, 3]");
    const auto n_elements = static_cast<std::int64_t>(model_.contract().elements.size());
    for (std::int64_t k = 0; k < n_atoms; ++k)
      if (types.data()[k] < 0 || types.data()[k] >= n_elements)
        throw mlip::Error("type " + std::to_string(types.data()[k]) + " of atom " + std::to_string(k) +
                          " is not in [0, " + std::to_string(n_elements) + ")");

    DoubleArray forces(std::vector<py::ssize_t>{static_cast<py::ssize_t>(n_atoms), 3});
    std::array<double, 9> virial;
    std::array<double, 9> box;
    std::copy(cell.data(), cell.data() + 9, box.begin());
    {
      py::gil_scoped_release release;
      const auto start = std::chrono::steady_clock::now();
      graph_.n_owned = n_atoms;
      graph_.node_types.assign(types.data(), types.data() + n_atoms);
      neighbours_.build(positions.data(), n_atoms, box, periodic, model_.contract().cutoff, graph_);
      model_.evaluate(graph_, evaluation_);
      double* force = forces.mutable_data();
      std::fill(force, force + 3 * n_atoms, 0.0);
      mlip::add_forces(graph_, evaluation_.edge_gradients, 1.0, force);
      virial = mlip::virial(graph_, evaluation_.edge_gradients);
      if (with_extras) model_.evaluate_extras(graph_, extras_);
      seconds_total_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }
    double energy = 0.0;
    for (double value : evaluation_.atomic_energies) energy += value;
    py::dict result;
    result["energy"] = energy;
    result["energies"] = py::array_t<double>(static_cast<py::ssize_t>(n_atoms), evaluation_.atomic_energies.data());
    result["forces"] = forces;
    result["virial"] = DoubleArray({3, 3}, virial.data());
    result["n_edges"] = graph_.n_edges();
    if (with_extras)
      for (std::size_t k = 0; k < extras_.size(); ++k)
        result[model_.contract().extras[k].c_str()] =
            py::array_t<double>(static_cast<py::ssize_t>(n_atoms), extras_[k].data());
    return result;
  }

  /// (seconds in compute, seconds in the back end) since construction.
  std::pair<double, double> timings() const { return {seconds_total_, model_.seconds_in_backend()}; }
  const mlip::Model& model() const { return model_; }

 private:
  mlip::Model model_;
  mlip::NeighbourList neighbours_;
  mlip::Graph graph_;
  mlip::Evaluation evaluation_;
  std::vector<std::vector<double>> extras_;
  double seconds_total_ = 0.0;
};

}  // namespace

PYBIND11_MODULE(_core, module) {
  module.doc() = "Evaluate an mlip-deploy artifact. Å, eV, eV/Å; see csrc/core/graph.h for signs.";
  py::register_exception<mlip::Error>(module, "Error", PyExc_ValueError);

  py::class_<Potential>(module, "Potential")
      .def(py::init<const std::string&, const std::string&, int>(), py::arg("path"), py::arg("device") = "cpu",
           py::arg("threads") = 0)
      .def("compute", &Potential::compute, py::arg("positions"), py::arg("types"), py::arg("cell"), py::arg("periodic"),
           py::arg("extras") = false,
           "-> dict: energy (eV), energies [n] (eV), forces [n, 3] (eV/Å), virial [3, 3] (eV, W = -Σ r ⊗ dE/dr), "
           "n_edges; with extras also the contract's further outputs [n]")
      .def("timings", &Potential::timings)
      .def_property_readonly("device", [](const Potential& self) { return self.model().device(); });

  module.def("compiled_torch_version", &mlip::compiled_torch_version);
  module.def("model_threads", &mlip::model_threads);
  module.def("check_contract",
             [](const std::string& json, const std::string& source) { mlip::parse_contract(json, source); });
  module.attr("EV_IN_KJ_PER_MOL") = mlip::units::ev_in_kj_per_mol;
  module.attr("EV_IN_KCAL_PER_MOL") = mlip::units::ev_in_kcal_per_mol;
}

// Python module mlip_deploy._core: evaluate an artifact from NumPy arrays. Holds no torch type.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <numeric>
#include <string_view>
#include <tuple>

#include "core/contract.h"
#include "core/error.h"
#include "core/format.h"
#include "core/sealed_archive.h"
#include "core/units.h"
#include "model/model.h"
#include "model/structure_evaluator.h"

namespace py = pybind11;

namespace {

using DoubleArray = py::array_t<double, py::array::c_style | py::array::forcecast>;
using IntArray = py::array_t<std::int64_t, py::array::c_style | py::array::forcecast>;

using Models = std::vector<std::unique_ptr<mlip::Model>>;

Models load(const std::vector<std::string>& paths, const std::string& device, int threads, bool self_test,
            const std::string& precision) {
  const mlip::ModelOptions options{
      .device = device, .threads = threads, .self_test = self_test, .products = mlip::parse_products(precision)};
  Models models;
  for (const auto& path : paths) models.push_back(std::make_unique<mlip::Model>(mlip::SealedArchive(path), options));
  if (models.empty()) throw mlip::Error("no file to load. Name at least one");
  return models;
}

std::vector<mlip::Model*> addresses(const Models& models) {
  std::vector<mlip::Model*> found;
  for (const auto& model : models) found.push_back(model.get());
  return found;
}

/// A model, or a committee, with its own neighbour list and buffers: energy, forces and virial of whole structures,
/// from any thread.
class Potential {
 public:
  Potential(const std::vector<std::string>& paths, const std::string& device, int threads, const std::string& edges,
            bool self_test, const std::string& drive, const std::string& precision)
      : models_(load(paths, device, threads, self_test, precision)),
        structure_(addresses(models_), mlip::parse_drive(drive), mlip::parse_edges_on(edges)) {}

  py::dict compute(const DoubleArray& positions, const IntArray& types, const DoubleArray& cell,
                   const std::array<bool, 3>& periodic, bool with_extras, bool with_atom_virials,
                   bool with_centroid_virials, const mlip::GivenSettings& given, bool with_forces, bool with_features,
                   bool with_grades, bool with_deviation, bool with_uncertainties) {
    const std::vector<std::vector<double>> settings = values_of(given);
    mlip::StepRequest wanted;
    wanted.forces = wanted.virial = with_forces;
    wanted.atom_virials = with_atom_virials;
    wanted.centroid_virials = with_centroid_virials;
    wanted.extras = with_extras;
    wanted.features = with_features;
    wanted.grades = with_grades;
    wanted.uncertainties = with_uncertainties;
    wanted.close_pair = !close_pair_reported_;
    const mlip::Structure structure = checked(positions, types, cell, periodic);
    const std::int64_t n_atoms = structure.n_atoms();
    mlip::StepResult step;
    mlip::Deviation deviation;
    {
      py::gil_scoped_release release;
      step = structure_.evaluate(structure.positions.data(), structure.types, structure.cell, periodic, wanted,
                                 settings, with_deviation ? &deviation : nullptr);
    }
    const auto of_atoms = [n = static_cast<py::ssize_t>(n_atoms)](const std::vector<double>& values, int width) {
      return DoubleArray({n, static_cast<py::ssize_t>(width)}, values.data());
    };
    py::dict result;
    result["energy"] = sum(step.atomic_energies);
    result["energies"] = py::array_t<double>(static_cast<py::ssize_t>(n_atoms), step.atomic_energies.data());
    if (wanted.forces) result["forces"] = of_atoms(step.forces, 3);
    if (wanted.virial) result["virial"] = DoubleArray({3, 3}, step.virial.data());
    result["n_edges"] = step.n_edges;
    if (step.close_pair.found() && !close_pair_reported_.exchange(true))
      result["close_pair"] = describe(step.close_pair, structure.types);
    if (wanted.atom_virials) result["atom_virials"] = of_atoms(step.atom_virials, 6);
    if (wanted.centroid_virials) {
      result["centroid_virials"] = of_atoms(step.centroid_virials, 9);
      result["centroid_virials_inexact"] = step.centroid_virials_inexact;
    }
    if (wanted.features) result["features"] = of_atoms(step.features, model().contract().features);
    if (wanted.grades) result["grades"] = py::array_t<double>(static_cast<py::ssize_t>(n_atoms), step.grades.data());
    if (wanted.uncertainties) {
      result["energy_uncertainty"] = step.energy_uncertainty;
      result["energies_uncertainty"] =
          py::array_t<double>(static_cast<py::ssize_t>(n_atoms), step.uncertainties.data());
    }
    if (with_deviation) {
      result["deviation"] = py::array_t<double>(static_cast<py::ssize_t>(n_atoms), deviation.of_atoms.data());
      result["deviation_summary"] = deviation.summary;
    }
    py::dict extras;
    for (std::size_t k = 0; k < step.extras.size(); ++k)
      extras[model().contract().extras[k].c_str()] =
          py::array_t<double>(static_cast<py::ssize_t>(n_atoms), step.extras[k].data());
    result["extras"] = extras;
    return result;
  }

  using StructureArrays = std::tuple<DoubleArray, IntArray, DoubleArray, std::array<bool, 3>>;

  py::list compute_many(const std::vector<StructureArrays>& arrays, const mlip::GivenSettings& given,
                        std::size_t counted_from) {
    const std::vector<std::vector<double>> settings = values_of(given);
    std::vector<mlip::Structure> structures;
    for (const auto& [positions, types, cell, periodic] : arrays)
      structures.push_back(checked(positions, types, cell, periodic));
    std::vector<mlip::StepResult> steps;
    {
      py::gil_scoped_release release;
      steps = structure_.evaluate_many(structures, settings, counted_from);
    }
    py::list results;
    for (std::size_t k = 0; k < steps.size(); ++k) {
      const mlip::StepResult& step = steps[k];
      const auto n = static_cast<py::ssize_t>(structures[k].n_atoms());
      py::dict result;
      result["energy"] = sum(step.atomic_energies);
      result["energies"] = py::array_t<double>(n, step.atomic_energies.data());
      result["forces"] = DoubleArray({n, py::ssize_t{3}}, step.forces.data());
      result["virial"] = DoubleArray({3, 3}, step.virial.data());
      if (step.close_pair.found() && !close_pair_reported_.exchange(true))
        result["close_pair"] =
            "frame " + std::to_string(counted_from + k) + ": " + describe(step.close_pair, structures[k].types);
      results.append(result);
    }
    return results;
  }

  /// (seconds in compute, seconds in the back end) since construction.
  std::pair<double, double> timings() const {
    const auto [total, backend] = structure_.seconds();
    return {total, backend};
  }
  double search_seconds() const { return structure_.seconds_of_searches(); }
  /// The first.
  const mlip::Model& model() const { return *models_.front(); }

 private:
  /// Copies: another thread may write into the arrays while this one computes.
  mlip::Structure checked(const DoubleArray& positions, const IntArray& types, const DoubleArray& cell,
                          const std::array<bool, 3>& periodic) const {
    const auto n_atoms = static_cast<std::int64_t>(types.size());
    if (positions.ndim() != 2 || positions.shape(1) != 3 || positions.shape(0) != n_atoms)
      throw mlip::Error("positions must have shape [n_atoms, 3] and types [n_atoms]");
    if (cell.size() != 9) throw mlip::Error("cell must have shape [3, 3]");
    mlip::Structure structure;
    structure.positions.assign(positions.data(), positions.data() + 3 * n_atoms);
    structure.types.assign(types.data(), types.data() + n_atoms);
    std::copy(cell.data(), cell.data() + 9, structure.cell.begin());
    structure.periodic = periodic;
    const auto n_elements = static_cast<std::int64_t>(model().contract().elements.size());
    for (std::int64_t k = 0; k < n_atoms; ++k)
      if (structure.types[k] < 0 || structure.types[k] >= n_elements)
        throw mlip::Error("type " + std::to_string(structure.types[k]) + " of atom " + std::to_string(k) +
                          " is not in [0, " + std::to_string(n_elements) + ")");
    return structure;
  }

  /// Settings of each member.
  std::vector<std::vector<double>> values_of(const mlip::GivenSettings& given) {
    std::vector<std::vector<double>> values;
    for (const auto& of_member : structure_.committee().settings(given)) values.push_back(of_member.values());
    return values;
  }

  static double sum(const std::vector<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }

  std::string describe(const mlip::ClosePair& pair, const std::vector<std::int64_t>& types) const {
    const auto name = [&](std::int64_t atom) {
      return std::to_string(atom) + " (" + model().contract().elements[types[atom]] + ")";
    };
    return mlip::describe(pair, name(pair.centre), name(pair.neighbour)) + " (atoms are counted from 0)";
  }

  Models models_;
  mlip::StructureEvaluator structure_;
  std::atomic<bool> close_pair_reported_{false};
};

/// What C++ throws is what Python raises: mlip_deploy.errors.MLIPError, one class for both.
void translate_errors() {
  PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<py::object> error_class;
  error_class.call_once_and_store_result(
      [] { return py::object(py::module_::import("mlip_deploy.errors").attr("MLIPError")); });
  py::register_local_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const mlip::Error& error) {
      // A message may hold bytes of a damaged file.
      const std::string_view words = error.what();
      const auto text = py::reinterpret_steal<py::object>(
          PyUnicode_DecodeUTF8(words.data(), static_cast<py::ssize_t>(words.size()), "replace"));
      if (text) PyErr_SetObject(error_class.get_stored().ptr(), text.ptr());
    }
  });
}

}  // namespace

PYBIND11_MODULE(_compiled, module) {
  module.doc() = "Evaluate an mlip-deploy artifact. Å, eV, eV/Å; see csrc/core/graph.h for signs.";
  translate_errors();

  py::class_<Potential>(module, "Potential")
      .def(py::init<const std::vector<std::string>&, const std::string&, int, const std::string&, bool,
                    const std::string&, const std::string&>(),
           py::arg("paths"), py::arg("device") = "cpu", py::arg("threads") = 0, py::arg("edges") = "auto",
           py::arg("self_test") = true, py::arg("drive") = "first", py::arg("precision") = "full",
           "edges: where candidates become edges, \"host\", \"device\", or \"auto\": on the host for a CPU; self_test: "
           "evaluate the fixture that the file marks and refuse wrong results; drive: of several files, \"first\" or "
           "\"mean\"; precision: of float32 products on a GPU, \"full\" or \"tf32\"")
      .def(py::init([](const std::string& path, const std::string& device, int threads, const std::string& edges,
                       bool self_test, const std::string& precision) {
             return std::make_unique<Potential>(std::vector{path}, device, threads, edges, self_test, "first",
                                                precision);
           }),
           py::arg("path"), py::arg("device") = "cpu", py::arg("threads") = 0, py::arg("edges") = "auto",
           py::arg("self_test") = true, py::arg("precision") = "full")
      .def("compute", &Potential::compute, py::arg("positions"), py::arg("types"), py::arg("cell"), py::arg("periodic"),
           py::arg("extras") = false, py::arg("atom_virials") = false, py::arg("centroid_virials") = false,
           py::arg("settings") = mlip::GivenSettings(), py::arg("forces") = true, py::arg("features") = false,
           py::arg("grades") = false, py::arg("deviation") = false, py::arg("uncertainties") = false,
           "settings: (name, number or choice) of each that is not at its default; forces: and the virial, "
           "without them, features, grades and uncertainties an evaluation costs a third; deviation: how far apart the "
           "members of a "
           "committee are -> mlip_deploy.result.Evaluation")
      .def("compute_many", &Potential::compute_many, py::arg("structures"), py::arg("settings") = mlip::GivenSettings(),
           py::arg("counted_from") = 0,
           "structures: (positions, types, cell, periodic) of each, as for compute; all in one pass, unless the model "
           "sums over all atoms; counted_from: the number of the first one in messages -> "
           "[mlip_deploy.result.Evaluation], where the virial is its symmetric part")
      .def("timings", &Potential::timings, py::call_guard<py::gil_scoped_release>())
      .def("search_seconds", &Potential::search_seconds, py::call_guard<py::gil_scoped_release>(),
           "of compute, in searches for neighbours")
      .def_property_readonly("no_grades", [](const Potential& self) { return self.model().no_grades(); })
      .def_property_readonly("no_uncertainties", [](const Potential& self) { return self.model().no_uncertainties(); })
      .def_property_readonly("self_test", [](const Potential& self) { return self.model().self_test(); })
      .def_property_readonly("device", [](const Potential& self) { return self.model().device(); });

  module.def("compiled_torch_version", &mlip::compiled_torch_version);
  module.def("model_threads", &mlip::model_threads);
  module.def("check_contract",
             [](const std::string& json, const std::string& source) { mlip::parse_contract(json, source); });
  module.def(
      "format",
      [] {
        py::dict operators;
        for (const auto& known : mlip::format::operators)
          operators[py::str(std::string(known.name))] = py::make_tuple(known.oldest, known.newest);
        py::list features;
        for (const auto& feature : mlip::format::features) features.append(py::str(std::string(feature)));
        return py::make_tuple(py::make_tuple(mlip::format::schema_major, mlip::format::schema_minor), features,
                              operators);
      },
      "-> ((major, minor) of the schema, features, {operator: (oldest, newest version)}): csrc/core/format.h");
  module.attr("EV_IN_KJ_PER_MOL") = mlip::units::ev_in_kj_per_mol;
  module.attr("EV_IN_KCAL_PER_MOL") = mlip::units::ev_in_kcal_per_mol;
}

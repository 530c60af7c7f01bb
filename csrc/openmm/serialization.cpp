// XML of an MLIPForce. It is also how Python makes one: deserialising `<Force type="MLIPForce" .../>` gives a
// real openmm.Force that owns the C++ object, with no SWIG wrapper of our own (python/mlip_deploy/openmm.py).
#include <openmm/OpenMMException.h>
#include <openmm/serialization/SerializationNode.h>
#include <openmm/serialization/SerializationProxy.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "artifact_bytes.h"
#include "core/base64.h"
#include "core/error.h"
#include "core/sha256.h"
#include "mlip_force.h"

namespace mlip_openmm {
namespace {

// 1: one artifact. 2: a committee, which a build that knows 1 alone would take for its first member.
constexpr int newest_xml_version = 2;

class MLIPForceProxy : public OpenMM::SerializationProxy {
 public:
  MLIPForceProxy() : SerializationProxy("MLIPForce") {}

  void serialize(const void* object, OpenMM::SerializationNode& node) const override {
    const auto& force = *static_cast<const MLIPForce*>(object);
    const MLIPForceDefinition& definition = force.definition();
    node.setIntProperty("version", definition.files.size() == 1 ? 1 : 2);
    write_file(definition.files.front(), node);
    for (std::size_t member = 1; member < definition.files.size(); ++member)
      write_file(definition.files[member], node.createChildNode("Member"));
    if (definition.files.size() > 1)
      node.setStringProperty("drive", definition.drive == mlip::Drive::mean ? "mean" : "first");
    node.setBoolProperty("periodic", definition.periodic);
    node.setIntProperty("threads", definition.threads);
    node.setStringProperty("device", definition.device);
    node.setBoolProperty("selfTest", definition.self_test);
    node.setStringProperty("precision", mlip::to_string(definition.products));
    node.setIntProperty("forceGroup", force.getForceGroup());
    node.setStringProperty("name", force.getName());
    node.setIntProperty("particles", definition.n_particles);
    OpenMM::SerializationNode& atoms = node.createChildNode("Atoms");
    for (std::size_t k = 0; k < definition.elements.size(); ++k) {
      OpenMM::SerializationNode& atom = atoms.createChildNode("Atom");
      atom.setStringProperty("symbol", definition.elements[k]);
      if (!definition.atoms.empty()) atom.setIntProperty("index", definition.atoms[k]);
    }
    OpenMM::SerializationNode& settings = node.createChildNode("Settings");
    for (const auto& [name, value] : definition.settings)
      settings.createChildNode("Setting").setStringProperty("name", name).setDoubleProperty("value", value);
  }

  void* deserialize(const OpenMM::SerializationNode& node) const override {
    const int version = node.getIntProperty("version");
    if (version < 1 || version > newest_xml_version)
      throw OpenMM::OpenMMException("MLIPForce: XML version is " + std::to_string(version) +
                                    ", this build reads up to " + std::to_string(newest_xml_version) +
                                    ". Install the mlip-deploy that wrote it");
    MLIPForceDefinition definition;
    definition.files.push_back(read_file(node));
    definition.drive = read_choice(node, "drive", "first", mlip::parse_drive);
    definition.periodic = node.getBoolProperty("periodic");
    definition.threads = node.getIntProperty("threads");
    definition.device = node.getStringProperty("device");
    definition.self_test = node.getBoolProperty("selfTest", true);
    definition.products = read_choice(node, "precision", "full", mlip::parse_products);
    definition.n_particles = node.getIntProperty("particles");
    definition.announced = node.getBoolProperty("announced", false);
    for (const auto& child : node.getChildren()) {
      if (child.getName() == "Atoms") {
        for (const auto& atom : child.getChildren()) {
          definition.elements.push_back(atom.getStringProperty("symbol"));
          if (atom.hasProperty("index")) definition.atoms.push_back(atom.getIntProperty("index"));
        }
      } else if (child.getName() == "Settings") {
        for (const auto& setting : child.getChildren())
          definition.settings.emplace_back(setting.getStringProperty("name"), setting.getDoubleProperty("value"));
      } else if (child.getName() == "Member") {
        definition.files.push_back(read_file(child));
      }
    }
    auto force = std::make_unique<MLIPForce>(std::move(definition));
    force->setForceGroup(node.getIntProperty("forceGroup", 0));
    force->setName(node.getStringProperty("name", force->getName()));
    return force.release();
  }

 private:
  static void write_file(const ArtifactFile& file, OpenMM::SerializationNode& node) {
    node.setStringProperty("path", file.path);
    node.setStringProperty("sha256", file.sha256);
    if (file.embedded) node.createChildNode("Artifact").setStringProperty("base64", mlip::to_base64(*file.embedded));
  }

  static ArtifactFile read_file(const OpenMM::SerializationNode& node) {
    ArtifactFile file{node.getStringProperty("path"), node.getStringProperty("sha256"), nullptr};
    for (const auto& child : node.getChildren())
      if (child.getName() == "Artifact")
        file.embedded = std::make_shared<const std::string>(embedded_bytes(child, file.sha256));
    return file;
  }

  /// One of a few names, which files of older releases lack.
  template <typename Choice>
  static Choice read_choice(const OpenMM::SerializationNode& node, const char* name, const char* fallback,
                            Choice (*parse)(const std::string&)) {
    try {
      return parse(node.getStringProperty(name, fallback));
    } catch (const mlip::Error& failure) {
      throw OpenMM::OpenMMException(std::string("MLIPForce: ") + failure.what());
    }
  }

  static std::string embedded_bytes(const OpenMM::SerializationNode& node, const std::string& expected) {
    try {
      std::string bytes = mlip::from_base64(node.getStringProperty("base64"));
      const std::string found = mlip::sha256(bytes);
      if (found != expected) throw mlip::Error("its SHA-256 is " + found + ", expected " + expected);
      return bytes;
    } catch (const mlip::Error& failure) {
      throw OpenMM::OpenMMException(std::string("MLIPForce: the embedded artifact is damaged: ") + failure.what() +
                                    ". Write the XML anew");
    }
  }
};

// Registered when the library is loaded.
const bool registered = [] {
  OpenMM::SerializationProxy::registerProxy(typeid(MLIPForce), new MLIPForceProxy());
  return true;
}();

}  // namespace
}  // namespace mlip_openmm

// For Python, which has no wrapper of the class.

extern "C" double mlip_openmm_seconds_in_models() { return mlip_openmm::MLIPForce::seconds_in_models(); }

namespace {

/// What `body(force)` throws, valid until the thread's next call; null if it throws nothing.
template <typename Body>
const char* reason_of_failure(OpenMM::Force* force, const Body& body) {
  thread_local std::string failure;
  try {
    body(dynamic_cast<const mlip_openmm::MLIPForce&>(*force));
    return nullptr;
  } catch (const std::exception& problem) {
    failure = problem.what();
    return failure.c_str();
  }
}

}  // namespace

// Of an MLIPForce in a Context, both by SWIG's addresses. @return why not, valid until the thread's next call; or null

/// @param of_atoms  [atoms that the model sees] eV/Å
/// @param summary   mlip::DeviationSummary
extern "C" const char* mlip_openmm_deviation(OpenMM::Force* force, OpenMM::Context* context, double* of_atoms,
                                             double* summary) {
  return reason_of_failure(force, [&](const mlip_openmm::MLIPForce& of_force) {
    const mlip::Deviation found = of_force.deviation(*context);
    std::copy(found.of_atoms.begin(), found.of_atoms.end(), of_atoms);
    std::copy(found.summary.begin(), found.summary.end(), summary);
  });
}

/// @param grades [atoms that the model sees]
extern "C" const char* mlip_openmm_grades(OpenMM::Force* force, OpenMM::Context* context, double* grades) {
  return reason_of_failure(force, [&](const mlip_openmm::MLIPForce& of_force) {
    const std::vector<double> found = of_force.grades(*context);
    std::copy(found.begin(), found.end(), grades);
  });
}

/// @param of_energy eV
/// @param of_atoms  [atoms that the model sees] eV
extern "C" const char* mlip_openmm_uncertainty(OpenMM::Force* force, OpenMM::Context* context, double* of_energy,
                                               double* of_atoms) {
  return reason_of_failure(force, [&](const mlip_openmm::MLIPForce& of_force) {
    const mlip_openmm::Uncertainty found = of_force.uncertainty(*context);
    *of_energy = found.of_energy;
    std::copy(found.of_atoms.begin(), found.of_atoms.end(), of_atoms);
  });
}

/// @param quantity "grade" or "uncertainty"
extern "C" const char* mlip_openmm_why_not(OpenMM::Force* force, OpenMM::Context* context, const char* quantity) {
  return reason_of_failure(force, [&](const mlip_openmm::MLIPForce& of_force) {
    const std::string reason = of_force.why_not(*context, quantity);
    if (!reason.empty()) throw OpenMM::OpenMMException(reason);
  });
}

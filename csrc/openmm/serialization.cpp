// XML of an MLIPForce. It is also how Python makes one: deserialising `<Force type="MLIPForce" .../>` gives a
// real openmm.Force that owns the C++ object, with no SWIG wrapper of our own (python/mlip_deploy/openmm.py).
#include <openmm/OpenMMException.h>
#include <openmm/serialization/SerializationNode.h>
#include <openmm/serialization/SerializationProxy.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "artifact_bytes.h"
#include "core/error.h"
#include "core/sha256.h"
#include "mlip_force.h"

namespace mlip_openmm {
namespace {

constexpr int xml_version = 1;

class MLIPForceProxy : public OpenMM::SerializationProxy {
 public:
  MLIPForceProxy() : SerializationProxy("MLIPForce") {}

  void serialize(const void* object, OpenMM::SerializationNode& node) const override {
    const auto& force = *static_cast<const MLIPForce*>(object);
    const MLIPForceDefinition& definition = force.definition();
    node.setIntProperty("version", xml_version);
    node.setStringProperty("path", definition.path);
    node.setStringProperty("sha256", definition.sha256);
    node.setBoolProperty("periodic", definition.periodic);
    node.setIntProperty("threads", definition.threads);
    node.setStringProperty("device", definition.device);
    node.setBoolProperty("selfTest", definition.self_test);
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
    if (definition.embedded)
      node.createChildNode("Artifact").setStringProperty("base64", to_base64(*definition.embedded));
  }

  void* deserialize(const OpenMM::SerializationNode& node) const override {
    const int version = node.getIntProperty("version");
    if (version != xml_version)
      throw OpenMM::OpenMMException("MLIPForce: XML version is " + std::to_string(version) + ", this build reads " +
                                    std::to_string(xml_version) + ". Install the mlip-deploy that wrote it");
    MLIPForceDefinition definition;
    definition.path = node.getStringProperty("path");
    definition.sha256 = node.getStringProperty("sha256");
    definition.periodic = node.getBoolProperty("periodic");
    definition.threads = node.getIntProperty("threads");
    definition.device = node.getStringProperty("device");
    definition.self_test = node.getBoolProperty("selfTest", true);
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
      } else if (child.getName() == "Artifact") {
        definition.embedded = std::make_shared<const std::string>(embedded_bytes(child, definition.sha256));
      }
    }
    auto force = std::make_unique<MLIPForce>(std::move(definition));
    force->setForceGroup(node.getIntProperty("forceGroup", 0));
    force->setName(node.getStringProperty("name", force->getName()));
    return force.release();
  }

 private:
  static std::string embedded_bytes(const OpenMM::SerializationNode& node, const std::string& expected) {
    try {
      std::string bytes = from_base64(node.getStringProperty("base64"));
      const std::string found = mlip::sha256(bytes);
      if (found != expected)
        throw mlip::Error("the embedded artifact is damaged: its SHA-256 is " + found + ", expected " + expected +
                          ". Write the XML anew");
      return bytes;
    } catch (const mlip::Error& failure) {
      throw OpenMM::OpenMMException(std::string("MLIPForce: ") + failure.what());
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

/// For Python, which has no wrapper of the class.
extern "C" double mlip_openmm_seconds_in_models() { return mlip_openmm::MLIPForce::seconds_in_models(); }

/// Grades [n_atoms] of an MLIPForce in a Context, both by SWIG's addresses. @return 0, or 1 with the reason in
/// `message`, cut off after `size` bytes
extern "C" int mlip_openmm_grades(OpenMM::Force* force, OpenMM::Context* context, double* grades, char* message,
                                  std::size_t size) {
  try {
    const auto found = dynamic_cast<mlip_openmm::MLIPForce&>(*force).grades(*context);
    std::copy(found.begin(), found.end(), grades);
    return 0;
  } catch (const std::exception& failure) {
    std::snprintf(message, size, "%s", failure.what());
    return 1;
  }
}

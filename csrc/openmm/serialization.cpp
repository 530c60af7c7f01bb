// XML of an MLIPForce. It is also how Python makes one: deserialising `<Force type="MLIPForce" .../>` gives a
// real openmm.Force that owns the C++ object, with no SWIG wrapper of our own (python/mlip_deploy/openmm.py).
#include <openmm/OpenMMException.h>
#include <openmm/serialization/SerializationNode.h>
#include <openmm/serialization/SerializationProxy.h>

#include <string>
#include <vector>

#include "mlip_force.h"

namespace mlip_openmm {
namespace {

constexpr int xml_version = 1;

class MLIPForceProxy : public OpenMM::SerializationProxy {
 public:
  MLIPForceProxy() : SerializationProxy("MLIPForce") {}

  void serialize(const void* object, OpenMM::SerializationNode& node) const override {
    const auto& force = *static_cast<const MLIPForce*>(object);
    node.setIntProperty("version", xml_version);
    node.setStringProperty("path", force.path());
    node.setBoolProperty("periodic", force.usesPeriodicBoundaryConditions());
    node.setIntProperty("threads", force.threads());
    node.setStringProperty("device", force.device());
    node.setIntProperty("forceGroup", force.getForceGroup());
    node.setStringProperty("name", force.getName());
    OpenMM::SerializationNode& atoms = node.createChildNode("Elements");
    for (const auto& symbol : force.elements()) atoms.createChildNode("Atom").setStringProperty("symbol", symbol);
  }

  void* deserialize(const OpenMM::SerializationNode& node) const override {
    const int version = node.getIntProperty("version");
    if (version != xml_version)
      throw OpenMM::OpenMMException("MLIPForce: XML version is " + std::to_string(version) + ", this build reads " +
                                    std::to_string(xml_version) + ". Install the mlip-deploy that wrote it");
    std::vector<std::string> symbols;
    for (const auto& atom : node.getChildNode("Elements").getChildren())
      symbols.push_back(atom.getStringProperty("symbol"));
    auto* force = new MLIPForce(node.getStringProperty("path"), std::move(symbols), node.getBoolProperty("periodic"),
                                node.getIntProperty("threads"), node.getStringProperty("device"));
    force->setForceGroup(node.getIntProperty("forceGroup", 0));
    force->setName(node.getStringProperty("name", force->getName()));
    return force;
  }
};

// Registered when the library is loaded.
const bool registered = [] {
  OpenMM::SerializationProxy::registerProxy(typeid(MLIPForce), new MLIPForceProxy());
  return true;
}();

}  // namespace
}  // namespace mlip_openmm

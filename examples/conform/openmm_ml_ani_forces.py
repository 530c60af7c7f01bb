"""openmm-ml 1.8: the forces of ANI-2x against the slope of its energy, for water: docs/conform.md."""

import openmm
from openmm import app, unit
from openmmml import MLPotential

topology = app.Topology()
residue = topology.addResidue("HOH", topology.addChain())
for symbol in "OHH":
    topology.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
system = MLPotential("ani2x").createSystem(topology)
context = openmm.Context(system, openmm.VerletIntegrator(0.001))
energies = []
for z in (0.115, 0.125, 0.12):  # nm, of a bond of 0.12 nm
    context.setPositions([(0, 0, 0), (0, 0, z), (0.09, 0, -0.03)])
    state = context.getState(energy=True, forces=True)
    energies.append(state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole))
force = state.getForces(asNumpy=True)[1][2].value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
print(f"-dE/dz {(energies[0] - energies[1]) / 0.01:.1f} kJ/mol/nm, force {force:.1f}")

"""Silicon, 64 atoms, constant energy, with OpenMM's MLIPForce.

Run it with: python silicon_nve.py --model 7net-0.mlip.pt
"""

import argparse
import sys

import openmm
from openmm import app, unit

from mlip_deploy.openmm import MLIPForce

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default="7net-0.mlip.pt")
parser.add_argument("--steps", type=int, default=50)
parser.add_argument("--threads", type=int, default=1)
options = parser.parse_args()

# A diamond crystal of 2 x 2 x 2 cubic cells.
LATTICE_CONSTANT, REPEATS = 0.543, 2  # nm
BASIS = [(0, 0, 0), (0, 2, 2), (2, 0, 2), (2, 2, 0), (1, 1, 1), (1, 3, 3), (3, 1, 3), (3, 3, 1)]  # quarters of a cell
topology = app.Topology()
chain = topology.addChain()
positions = []
for x in range(REPEATS):
    for y in range(REPEATS):
        for z in range(REPEATS):
            for basis in BASIS:
                topology.addAtom("Si", app.Element.getBySymbol("Si"), topology.addResidue("Si", chain))
                cell = openmm.Vec3(x + basis[0] / 4, y + basis[1] / 4, z + basis[2] / 4)
                positions.append(LATTICE_CONSTANT * cell)
edge = REPEATS * LATTICE_CONSTANT
topology.setUnitCellDimensions((edge, edge, edge) * unit.nanometer)

system = openmm.System()
for atom in topology.atoms():
    system.addParticle(atom.element.mass)
system.setDefaultPeriodicBoxVectors(*topology.getPeriodicBoxVectors())
system.addForce(MLIPForce(options.model, topology, threads=options.threads))

simulation = app.Simulation(topology, system, openmm.VerletIntegrator(1.0 * unit.femtosecond))
simulation.context.setPositions(positions)
simulation.context.setVelocitiesToTemperature(600.0 * unit.kelvin, 20240711)
simulation.reporters.append(
    app.StateDataReporter("silicon_nve_openmm.csv", 1, time=True, totalEnergy=True, temperature=True)
)
simulation.reporters.append(
    app.StateDataReporter(
        sys.stdout,
        10,
        step=True,
        temperature=True,
        totalEnergy=True,
        speed=True,
        progress=True,
        totalSteps=options.steps,
    )
)
simulation.step(options.steps)

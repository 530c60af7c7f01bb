"""Methanol in vacuum through openmmtorch's TorchForce: this script needs openmmtorch, and not mlip-deploy.

Write the file, without atoms, where mlip-deploy is: mlip export sevennet 7net-0 --target torchforce -o
7net-0.torchforce.pt. Run it where openmmtorch is: python methanol_torchforce.py --model 7net-0.torchforce.pt
"""

import argparse
import sys
from pathlib import Path

import torch  # before openmmtorch, which finds CUDA's libraries only through it

# isort: split
import openmm
import openmmtorch
from openmm import app, unit

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default="7net-0.torchforce.pt")
parser.add_argument("--steps", type=int, default=1000)
parser.add_argument("--platform", help="OpenMM platform; by default the fastest")
options = parser.parse_args()

methanol = app.PDBFile(str(Path(__file__).parent / "methanol.pdb"))
# TorchForce hands over positions only: the file has to know the elements.
module = torch.jit.load(options.model)
module.set_atoms([atom.element.symbol for atom in methanol.topology.atoms()], [])
module.save("methanol.torchforce.pt")

system = openmm.System()
for atom in methanol.topology.atoms():
    system.addParticle(atom.element.mass)
force = openmmtorch.TorchForce("methanol.torchforce.pt")
force.setOutputsForces(True)
system.addForce(force)

platform = openmm.Platform.getPlatformByName(options.platform) if options.platform else None
integrator = openmm.VerletIntegrator(0.5 * unit.femtosecond)
simulation = app.Simulation(methanol.topology, system, integrator, platform)
simulation.context.setPositions(methanol.positions)
simulation.context.setVelocitiesToTemperature(300.0 * unit.kelvin, 1)
for target in (sys.stdout, "methanol_torchforce.csv"):
    simulation.reporters.append(
        app.StateDataReporter(target, max(1, options.steps // 20), step=True, potentialEnergy=True, totalEnergy=True)
    )
simulation.step(options.steps)

"""A box of water at constant temperature and pressure, all atoms with the model.

The model decides about bonds: nothing is constrained, so the timestep is half a femtosecond.
Run it with: python water_box_npt.py --model 7net-0.mlip.pt
"""

import argparse
import sys

import openmm
from openmm import app, unit

from mlip_deploy.openmm import MLIPForce

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default="7net-0.mlip.pt")
parser.add_argument("--molecules", type=int, default=64)
parser.add_argument("--steps", type=int, default=20000)
parser.add_argument("--threads", type=int, default=0)
parser.add_argument("--device", default="auto")
parser.add_argument("--platform", help="OpenMM platform; by default the fastest")
options = parser.parse_args()

# TIP3P serves only to pack the molecules.
forcefield = app.ForceField("amber14/tip3p.xml")
modeller = app.Modeller(app.Topology(), [] * unit.nanometer)
modeller.addSolvent(forcefield, model="tip3p", numAdded=options.molecules)

system = openmm.System()
system.setDefaultPeriodicBoxVectors(*modeller.topology.getPeriodicBoxVectors())
for atom in modeller.topology.atoms():
    system.addParticle(atom.element.mass)
system.addForce(MLIPForce(options.model, modeller.topology, device=options.device, threads=options.threads))
system.addForce(openmm.MonteCarloBarostat(1.0 * unit.bar, 300.0 * unit.kelvin))

integrator = openmm.LangevinMiddleIntegrator(300.0 * unit.kelvin, 1.0 / unit.picosecond, 0.5 * unit.femtosecond)
platform = openmm.Platform.getPlatformByName(options.platform) if options.platform else None
simulation = app.Simulation(modeller.topology, system, integrator, platform)
simulation.context.setPositions(modeller.positions)
simulation.minimizeEnergy(maxIterations=min(50, options.steps))
simulation.context.setVelocitiesToTemperature(300.0 * unit.kelvin, 1)
every = max(1, options.steps // 100)
for target in (sys.stdout, "water_box_npt.csv"):
    simulation.reporters.append(
        app.StateDataReporter(target, every, step=True, temperature=True, volume=True, density=True, speed=True)
    )
simulation.reporters.append(app.CheckpointReporter("water_box_npt.chk", every))
simulation.step(options.steps)

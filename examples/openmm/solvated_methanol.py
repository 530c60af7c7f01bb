"""Methanol with a machine-learned potential in TIP3P water, through openmm-ml.

The model gives the energy of the methanol molecule; water, and water with methanol, stay with the force field. ANI-2x
was trained on such molecules. 7net-0 was trained on crystals of MPtrj and is no model of an organic molecule, though it
runs here too.
Needs: pip install openmmml
Run it with: mlip export ani 2x -o ani-2x.mlip.pt && python solvated_methanol.py
"""

import argparse
import sys
from pathlib import Path

import openmm
from openmm import app, unit
from openmmml import MLPotential

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default="ani-2x.mlip.pt")
parser.add_argument("--steps", type=int, default=2000)
parser.add_argument("--platform", help="OpenMM platform; by default the fastest")
options = parser.parse_args()

here = Path(__file__).parent
methanol = app.PDBFile(str(here / "methanol.pdb"))
forcefield = app.ForceField("amber14/tip3p.xml", str(here / "methanol.xml"))
modeller = app.Modeller(methanol.topology, methanol.positions)
modeller.addSolvent(forcefield, model="tip3p", boxSize=openmm.Vec3(1.9, 1.9, 1.9) * unit.nanometer)
force_field_system = forcefield.createSystem(
    modeller.topology, nonbondedMethod=app.PME, nonbondedCutoff=0.9 * unit.nanometer, constraints=app.HBonds
)

solute = [atom.index for atom in modeller.topology.atoms() if atom.residue.name == "MOH"]
potential = MLPotential("mlip", model=options.model)
system = potential.createMixedSystem(modeller.topology, force_field_system, solute)
print(f"{len(solute)} atoms with the model, {system.getNumParticles() - len(solute)} with the force field")

# Nothing constrains the bonds of the model's atoms: a timestep for freely vibrating hydrogen.
integrator = openmm.LangevinMiddleIntegrator(300.0 * unit.kelvin, 1.0 / unit.picosecond, 0.5 * unit.femtosecond)
platform = openmm.Platform.getPlatformByName(options.platform) if options.platform else None
simulation = app.Simulation(modeller.topology, system, integrator, platform)
simulation.context.setPositions(modeller.positions)
simulation.minimizeEnergy(maxIterations=min(100, options.steps))
simulation.context.setVelocitiesToTemperature(300.0 * unit.kelvin, 1)
simulation.reporters.append(
    app.StateDataReporter(
        sys.stdout, max(1, options.steps // 10), step=True, potentialEnergy=True, temperature=True, speed=True
    )
)
simulation.reporters.append(app.DCDReporter("solvated_methanol.dcd", max(1, options.steps // 100)))
simulation.step(options.steps)

"""A molecule or an ion in water, all atoms with SO3LR, at constant temperature and volume.

SO3LR has charges and dispersion, and takes the total charge of the box, which has no default. Nothing is constrained,
so the timestep is half a femtosecond. At the end one more electron is put in: the charge is a parameter of the Context.
Needs: mlip export so3lr so3lr -o so3lr.mlip.pt
Run it with: python so3lr_in_water.py --solute methanol --charge 0
         or: python so3lr_in_water.py --solute acetate --charge -1
"""

import argparse
import sys
from pathlib import Path

import openmm
from openmm import app, unit

from mlip_deploy.openmm import MLIPForce

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default="so3lr.mlip.pt")
parser.add_argument("--solute", default="methanol", choices=["methanol", "acetate"])
parser.add_argument("--charge", type=int, required=True, help="of the whole box, e")
parser.add_argument("--edge", type=float, default=1.5, help="of the box, nm")
parser.add_argument("--steps", type=int, default=2000)
parser.add_argument("--threads", type=int, default=0)
parser.add_argument("--device", default="auto")
parser.add_argument("--platform", help="OpenMM platform; by default the fastest")
options = parser.parse_args()

# The force field serves only to pack water around the solute. SO3LR does not know sodium, which would neutralise it.
here = Path(__file__).parent
solute = app.PDBFile(str(here / f"{options.solute}.pdb"))
forcefield = app.ForceField("amber14/tip3p.xml", str(here / f"{options.solute}.xml"))
modeller = app.Modeller(solute.topology, solute.positions)
box = openmm.Vec3(1, 1, 1) * options.edge * unit.nanometer
modeller.addSolvent(forcefield, model="tip3p", boxSize=box, neutralize=False)

system = openmm.System()
system.setDefaultPeriodicBoxVectors(*modeller.topology.getPeriodicBoxVectors())
for atom in modeller.topology.atoms():
    system.addParticle(atom.element.mass)
where = {"device": options.device, "threads": options.threads}
system.addForce(MLIPForce(options.model, modeller.topology, charge=options.charge, **where))
print(f"{options.solute} in water: {system.getNumParticles()} atoms, charge {options.charge} e")

integrator = openmm.LangevinMiddleIntegrator(300.0 * unit.kelvin, 1.0 / unit.picosecond, 0.5 * unit.femtosecond)
platform = openmm.Platform.getPlatformByName(options.platform) if options.platform else None
simulation = app.Simulation(modeller.topology, system, integrator, platform)
simulation.context.setPositions(modeller.positions)
simulation.minimizeEnergy(maxIterations=min(100, options.steps))
simulation.context.setVelocitiesToTemperature(300.0 * unit.kelvin, 1)
every = max(1, options.steps // 20)
simulation.reporters.append(
    app.StateDataReporter(sys.stdout, every, step=True, potentialEnergy=True, temperature=True, speed=True)
)
simulation.reporters.append(app.DCDReporter("so3lr_in_water.dcd", max(1, options.steps // 100)))
simulation.step(options.steps)

energies = []
for charge in (options.charge, options.charge - 1):
    simulation.context.setParameter("charge", charge)
    energies.append(simulation.context.getState(energy=True).getPotentialEnergy())
print(f"with one electron more: {(energies[1] - energies[0]).value_in_unit(unit.kilojoule_per_mole):+.0f} kJ/mol")

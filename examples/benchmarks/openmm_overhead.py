"""Milliseconds per step outside the model: MLIPForce beside OpenMM's PythonForce with the same TorchScript model.

PythonForce is what one would write by hand: vesin's neighbour list, the artifact's own module, NumPy in between. In
both, a clock around the call of the module tells what the model takes of a step.
Run it with: OMP_NUM_THREADS=1 python openmm_overhead.py --model 7net-0.mlip.pt
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import openmm
import torch
from ase import Atoms
from ase.build import bulk
from openmm import unit
from vesin import NeighborList

from mlip_deploy import _core
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.openmm import MLIPForce, system_of
from mlip_deploy.operators import load_operators

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default="7net-0.mlip.pt")
parser.add_argument("--element", default="Si", help="a diamond crystal of it; default: Si")
parser.add_argument("--lattice-constant", type=float, default=5.43, help="Å; default: 5.43")
parser.add_argument("--steps", type=int, default=20)
options = parser.parse_args()
torch.set_num_threads(1)
load_operators()
contract = Artifact(options.model).contract
dtype = torch.float32 if contract.dtype == "float32" else torch.float64


class ByHand:
    """An artifact's module inside a PythonForce."""

    def __init__(self, atoms: Atoms):
        self.module = torch.jit.load(options.model).eval()
        self.types = torch.tensor(contract.types_of(atoms.get_chemical_symbols()))
        self.seconds_in_model = 0.0

    def __call__(self, state: openmm.State) -> tuple[float, np.ndarray]:
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
        box = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.angstrom)
        i, j, vectors = NeighborList(cutoff=contract.cutoff, full_list=True).compute(
            points=positions, box=box, periodic=True, quantities="ijD"
        )
        edges = torch.from_numpy(np.stack([i, j]).astype(np.int64))
        vectors = torch.from_numpy(vectors).to(dtype)
        start = time.perf_counter()
        energies, gradient = self.module(self.types, len(self.types), edges, vectors)
        self.seconds_in_model += time.perf_counter() - start
        forces = torch.zeros((len(self.types), 3), dtype=torch.float64)
        forces.index_add_(0, edges[0], gradient.double()).index_add_(0, edges[1], -gradient.double())
        energy = float(energies.detach().double().sum())
        return energy * _core.EV_IN_KJ_PER_MOL, forces.numpy() * (10.0 * _core.EV_IN_KJ_PER_MOL)


def outside_model(system: openmm.System, atoms: Atoms, seconds_in_model: Callable[[], float]) -> float:
    """Median milliseconds that a step takes beside the model."""
    context = openmm.Context(system, openmm.VerletIntegrator(0.0005), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(0.1 * atoms.positions)
    context.setVelocitiesToTemperature(300.0, 1)
    context.getIntegrator().step(3)
    outside = []
    for _ in range(options.steps):
        before, start = seconds_in_model(), time.perf_counter()
        context.getIntegrator().step(1)
        outside.append(time.perf_counter() - start - (seconds_in_model() - before))
    return 1e3 * statistics.median(outside)


def mlip_force(atoms: Atoms) -> float:
    return outside_model(system_of(atoms, options.model, threads=1), atoms, MLIPForce.seconds_in_models)


def python_force(atoms: Atoms) -> float:
    by_hand = ByHand(atoms)
    system = system_of(atoms, options.model)
    system.removeForce(0)
    force = openmm.PythonForce(by_hand)
    force.setUsesPeriodicBoundaryConditions(True)
    system.addForce(force)
    return outside_model(system, atoms, lambda: by_hand.seconds_in_model)


print(f"{contract.model.name}, {contract.dtype}, cutoff {contract.cutoff:g} Å, OpenMM {openmm.__version__}, one thread")
print("atoms   ms per step outside the model: MLIPForce   PythonForce   ratio")
for repeats in ((2, 2, 2), (2, 3, 4)):
    crystal = bulk(options.element, "diamond", a=options.lattice_constant, cubic=True).repeat(repeats)
    crystal.rattle(0.05, seed=1)
    ours, by_hand = mlip_force(crystal), python_force(crystal)
    print(f"{len(crystal):5d} {ours:40.2f} {by_hand:13.2f} {ours / by_hand:7.2f}")

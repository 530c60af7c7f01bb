"""What exact virials of atoms cost, and how far a heat flux is off without them: MgO and Si with a file.

Without them the virial of an edge goes to its neighbour, as in a local model.

python examples/heat_flux.py 7net-0.mlip.pt [--figure heat-flux.svg]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet
from ase.neighborlist import neighbor_list

from mlip_deploy import MLIPCalculator
from mlip_deploy.operators import load_operators

SYSTEMS = {
    "MgO": bulk("MgO", "rocksalt", a=4.24, cubic=True).repeat(2),
    "Si": bulk("Si", "diamond", a=5.46, cubic=True).repeat(2),
}
TEMPERATURE = 600.0  # K
STEPS, BEFORE = 300, 200  # of 1 fs; the first ones, in which heat spreads, are left out


def virials_of_edges(model: torch.jit.ScriptModule, types: list[int], cutoff: float, atoms: Atoms) -> np.ndarray:
    """W_j = -Σ_i r_ij ⊗ ∂E/∂r_ij, [n, 3, 3] in eV: right for a local model alone."""
    centres, neighbours, vectors = neighbor_list("ijD", atoms, cutoff)
    edges = torch.tensor(np.array([centres, neighbours]))
    kind = torch.float64 if atoms.calc.contract.dtype == "float64" else torch.float32
    _, gradients = model(torch.tensor(types), len(atoms), edges, torch.tensor(vectors, dtype=kind))
    virials = np.zeros((len(atoms), 3, 3))
    np.add.at(virials, neighbours, -vectors[:, :, None] * gradients.double().numpy()[:, None, :])
    return virials


def fluxes(path: str, atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
    """Σ_j W_j v_j along a run at constant energy, [steps, 3] in eV Å/fs: exact, and by edges."""
    atoms = atoms.copy()
    atoms.calc = MLIPCalculator(path)
    model = torch.jit.load(path)  # type: ignore[no-untyped-call]
    types = atoms.calc.contract.types_of(atoms.get_chemical_symbols())
    MaxwellBoltzmannDistribution(atoms, temperature_K=2 * TEMPERATURE, rng=np.random.default_rng(1))
    found = []

    def record() -> None:
        exact = atoms.calc.get_property("virials", atoms)
        edges = virials_of_edges(model, types, atoms.calc.contract.cutoff, atoms)
        found.append([np.einsum("nab,nb->a", w, atoms.get_velocities()) * units.fs for w in (exact, edges)])

    dynamics = VelocityVerlet(atoms, timestep=1.0 * units.fs)
    dynamics.run(BEFORE)
    dynamics.attach(record)
    dynamics.run(STEPS)
    return tuple(np.array(found).transpose(1, 0, 2))


def cost(path: str, atoms: Atoms) -> float:
    """Processor time of a step with virials of atoms, in steps without."""
    calculator = MLIPCalculator(path)
    types = calculator.contract.types_of(atoms.get_chemical_symbols())

    def seconds(virials: bool) -> float:
        start = time.process_time()
        calculator.potential.compute(
            atoms.positions, types, atoms.cell.array, atoms.pbc.tolist(), centroid_virials=virials
        )
        return time.process_time() - start

    for virials in (False, True):
        seconds(virials)
    return float(np.median([seconds(True) / seconds(False) for _ in range(5)]))


def draw(lines: dict[str, tuple[np.ndarray, np.ndarray]], path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams["svg.fonttype"] = "none"
    pyplot.rcParams["svg.hashsalt"] = "heat-flux"

    figure, axes = pyplot.subplots(1, len(lines), figsize=(9, 2.8), layout="constrained")
    for axis, (name, (exact, edges)) in zip(axes, lines.items(), strict=True):
        axis.plot(exact[:, 0], label="exact", color="#1f4e79")
        axis.plot(edges[:, 0], label="each edge's virial to its neighbour", color="#c55a11", linestyle="--")
        axis.set(title=name, xlabel="time (fs)", ylabel="Σ W·v along x (eV Å/fs)")
    axes[-1].legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None} if path.endswith(".svg") else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--figure")
    options = parser.parse_args()
    torch.set_num_threads(1)
    load_operators()
    lines = {}
    large = SYSTEMS["Si"].repeat((3, 1, 1))
    print(f"a step of {len(large)} atoms with virials of atoms costs {cost(options.model, large):.1f} steps")
    print(f"{'':4} {'rms exact':>12} {'rms by edges':>13} {'rms difference':>15}   eV Å/fs")
    for name, atoms in SYSTEMS.items():
        exact, edges = lines[name] = fluxes(options.model, atoms)
        rms = [np.sqrt((values**2).mean()) for values in (exact, edges, exact - edges)]
        print(f"{name:4} {rms[0]:12.4f} {rms[1]:13.4f} {rms[2]:15.4f}   {100 * rms[2] / rms[0]:.0f} % of the exact one")
    if options.figure:
        draw(lines, options.figure)


if __name__ == "__main__":
    main()

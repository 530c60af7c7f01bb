"""Hydrogen in bcc iron with a deployed model: six properties against published PBE values.

    mlip export sevennet 7net-0 -o 7net-0.mlip.pt
    python run.py 7net-0.mlip.pt                 # Python route
    python run.py 7net-0.mlip.pt --lammps        # and the three that alpha_fe_h.in computes, in LAMMPS

Zero-point energies are left out on both sides. Cells are cubic, size × size × size, at the model's lattice constant.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms
from ase.mep import NEB
from ase.optimize import FIRE
from ase.units import GPa

from mlip_deploy.ase import MLIPCalculator
from mlip_deploy.engines import lammps
from mlip_deploy.validation.properties.eos import fit
from mlip_deploy.validation.properties.recipe import relax

HERE = Path(__file__).parent
FMAX = 0.01  # eV/Å
IMAGES = 5  # of the nudged elastic band, between its ends
TETRAHEDRAL, NEXT_TETRAHEDRAL, OCTAHEDRAL = (0.5, 0.25, 0.0), (0.25, 0.5, 0.0), (0.5, 0.5, 0.0)
NUDGE = (0.03, 0.02, 0.01)  # Å, to leave a saddle point
BESIDE_VACANCY = (0.42, 0.0, 0.0)  # off the octahedral site next to a vacancy at the origin, towards it


@dataclass(frozen=True)
class Published:
    value: float
    unit: str
    tolerance: float
    """what counts as agreement: a choice of this example, wider than the scatter between PBE calculations"""
    source: str


DELTA = "WIEN2k PBE, Lejaeghere et al., Science 351, aad3000 (2016)"
PUBLISHED = {
    "lattice_constant": Published(2.831, "Å", 0.03, DELTA),
    "bulk_modulus": Published(197.7, "GPa", 30.0, DELTA),
    "vacancy_formation": Published(2.19, "eV", 0.25, "Ma and Dudarev, Phys. Rev. Mater. 3, 013605 (2019)"),
    "site_preference": Published(0.13, "eV", 0.05, "Jiang and Carter, Phys. Rev. B 70, 064102 (2004)"),
    "migration_barrier": Published(0.088, "eV", 0.04, "Jiang and Carter, Phys. Rev. B 70, 064102 (2004)"),
    "vacancy_binding": Published(0.559, "eV", 0.15, "Tateyama and Ohno, Phys. Rev. B 67, 174105 (2003)"),
}
MEANING = {
    "lattice_constant": "lattice constant",
    "bulk_modulus": "bulk modulus",
    "vacancy_formation": "vacancy formation energy",
    "site_preference": "H: octahedral less tetrahedral site",
    "migration_barrier": "H: barrier between tetrahedral sites",
    "vacancy_binding": "H: binding to a vacancy",
}


class Iron:
    """Supercells of bcc iron with one calculator."""

    def __init__(self, path: Path, size: int, threads: int = 0):
        self.calculator = MLIPCalculator(path, threads=threads)
        equation = fit(bulk("Fe", "bcc", a=2.83, cubic=True), self.calculator)
        self.constant = (2 * equation.volume) ** (1 / 3)
        self.bulk_modulus = equation.bulk_modulus / GPa
        self.perfect = bulk("Fe", "bcc", a=self.constant, cubic=True).repeat(size)
        self.perfect_energy = self.energy(self.perfect)

    def energy(self, atoms: Atoms) -> float:
        atoms.calc = self.calculator
        return float(atoms.get_potential_energy())

    def relaxed(self, atoms: Atoms) -> tuple[Atoms, float]:
        atoms.calc = self.calculator
        relax(atoms, fmax=FMAX)
        return atoms, float(atoms.get_potential_energy())

    def with_hydrogen(self, crystal: Atoms, site: tuple[float, float, float]) -> Atoms:
        """Hydrogen, the last atom, at a site in units of the lattice constant."""
        return crystal + Atoms("H", positions=[np.array(site) * self.constant])

    def vacancy(self) -> Atoms:
        """Without the atom at the origin."""
        crystal = self.perfect.copy()
        del crystal[0]
        return crystal


def python_route(path: Path, size: int, threads: int = 0) -> tuple[dict[str, float], list[str]]:
    """The properties with ASE's optimisers, and remarks; without the barrier where there is nothing to cross."""
    iron = Iron(path, size, threads)
    n = len(iron.perfect)
    _, with_vacancy = iron.relaxed(iron.vacancy())
    at_site = {}
    for site in (TETRAHEDRAL, OCTAHEDRAL):
        held = iron.with_hydrogen(iron.perfect, site)
        held.set_constraint(FixAtoms([n]))
        at_site[site] = iron.relaxed(held)[1]
    released = iron.with_hydrogen(iron.perfect, TETRAHEDRAL)
    released.positions[n] += NUDGE
    released, free = iron.relaxed(released)
    wandered = float(np.linalg.norm(released.positions[n] - np.array(TETRAHEDRAL) * iron.constant))
    _, trapped = iron.relaxed(iron.with_hydrogen(iron.vacancy(), BESIDE_VACANCY))
    found = {
        "lattice_constant": iron.constant,
        "bulk_modulus": iron.bulk_modulus,
        "vacancy_formation": with_vacancy - iron.perfect_energy * (n - 1) / n,
        "site_preference": at_site[OCTAHEDRAL] - at_site[TETRAHEDRAL],
        "vacancy_binding": with_vacancy + min(free, *at_site.values()) - trapped - iron.perfect_energy,
    }
    if wandered > 0.1 * iron.constant:
        return found, [
            f"hydrogen released beside the tetrahedral site ends {wandered:.2f} Å away: this model has no minimum "
            f"there, and so no barrier between tetrahedral sites"
        ]
    last, _ = iron.relaxed(iron.with_hydrogen(iron.perfect, NEXT_TETRAHEDRAL))
    found["migration_barrier"] = barrier(iron, released, last)
    return found, []


def barrier(iron: Iron, first: Atoms, last: Atoms) -> float:
    """Highest energy of a climbing-image nudged elastic band over its start, eV."""
    images = [first.copy() for _ in range(IMAGES + 1)] + [last.copy()]
    band = NEB(images, climb=True, method="improvedtangent", allow_shared_calculator=True)
    band.interpolate(mic=True)
    for image in images:
        image.calc = iron.calculator
    if not FIRE(band, logfile=None).run(fmax=3 * FMAX, steps=200):
        raise SystemExit("the nudged elastic band did not converge in 200 steps")
    energies = [image.get_potential_energy() for image in images]
    return float(max(energies) - energies[0])


def lammps_route(path: Path, size: int, threads: int = 1) -> dict[str, float]:
    """What alpha_fe_h.in computes."""
    variables = {"model": str(path.resolve()), "size": size, "threads": max(1, threads), "force_tolerance": FMAX}
    with tempfile.TemporaryDirectory(prefix="alpha-fe-h-") as directory:
        output = lammps.run((HERE / "alpha_fe_h.in").read_text(), directory, variables=variables)
    words = [line.split() for line in output.splitlines() if line.startswith("result ")]
    return {name: float(value) for _, name, value in words}


def table(routes: dict[str, dict[str, float]]) -> str:
    """One line for each property: every route's value, the reference, and whether they agree."""
    head = (
        f"{'property':38}" + "".join(f"{route:>10}" for route in routes) + f"{'PBE':>10}  {'unit':5}{'verdict':9}source"
    )
    lines = [head]
    for key, published in PUBLISHED.items():
        values = [found[key] for found in routes.values() if key in found]
        cells = "".join(f"{found[key]:10.3f}" if key in found else f"{'–':>10}" for found in routes.values())
        good = bool(values) and all(abs(value - published.value) <= published.tolerance for value in values)
        lines.append(
            f"{MEANING[key]:38}{cells}{published.value:10.3f}  {published.unit:5}"
            f"{'agrees' if good else 'differs':9}±{published.tolerance} {published.source}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--size", type=int, default=3, help="cubic cells along each direction; default: 3 (54 atoms)")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--lammps", action="store_true", help="run the LAMMPS route as well")
    parser.add_argument("--json", type=Path, help="also write the numbers there")
    options = parser.parse_args()
    started = time.monotonic()
    found, remarks = python_route(options.model, options.size, options.threads)
    routes = {"Python": found}
    if options.lammps:
        routes["LAMMPS"] = lammps_route(options.model, options.size, options.threads)
    print(table(routes))
    for remark in remarks:
        print(remark)
    print(f"{2 * options.size**3} sites, {time.monotonic() - started:.0f} s")
    if options.json:
        references = {key: asdict(published) for key, published in PUBLISHED.items()}
        options.json.write_text(
            json.dumps({"routes": routes, "remarks": remarks, "published": references}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()

"""Forces and stress are derivatives of the energy, and the forces have a potential."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from mlip_deploy.result import VOIGT, Array, Result
from mlip_deploy.validate.case import Case, Check, Context, Curve, Outcome, Series
from mlip_deploy.validate.physics.stencil import NOISE_GAIN, POINTS, derivative, step_for
from mlip_deploy.validate.physics.tools import (
    Progress,
    bounds,
    case,
    displaced,
    evaluate,
    fixture_structures,
    judged,
    largest,
    outcome,
)

STRUCTURES = ("odd number of atoms", "molecule without periodicity", "cell smaller than twice the cutoff")
"""Small ones, of which every component can be differentiated."""
STRAIN_PER_LENGTH = 0.4
"""1/Å: strain that moves neighbours (2.5 Å apart) as far as the step of a displacement."""
NOISE = (
    "error of central differences of eighth order: noise of the energies ({noise:.1e} eV, the fidelity bound) over the "
    "step ({step:.3g} {unit}) plus truncation (from the difference to fourth order)"
)
FORCE_NOISE = "noise of the forces (the fidelity bound) over the step, plus truncation"
VOIGT_NAMES = ("xx", "yy", "zz", "yz", "xz", "xy")


def cases(context: Context) -> list[Case]:
    found = fixture_structures(context)

    def of(name: str) -> Case:
        return case(
            f"derivatives: {name}",
            "Forces that are not the gradient of the energy make no ensemble; a wrong virial makes a wrong pressure.",
            lambda context, progress: _run(context, found[name], progress),
        )

    return [of(name) for name in STRUCTURES if name in found]


def _run(context: Context, atoms: Atoms, progress: Progress) -> Outcome:
    noise = bounds(context).energy_per_atom * len(atoms)
    step = step_for(noise)
    frames = [atoms, *displacements(atoms, step)]
    periodic = bool(atoms.pbc.all()) and context.engine != "openmm"
    if periodic:
        frames += strains(atoms, STRAIN_PER_LENGTH * step)
    progress(f"{len(frames)} frames of {len(atoms)} atoms")
    base, *results = evaluate(context, frames)
    moved, strained = results[: 3 * len(atoms) * len(POINTS)], results[3 * len(atoms) * len(POINTS) :]
    checks, curve = forces(context, base, moved, step, noise)
    if strained:
        checks += stresses(base, strained, STRAIN_PER_LENGTH * step, noise, atoms.get_volume())
    elif atoms.pbc.all():
        checks.append(
            Check(
                quantity="stress",
                value=None,
                unit="eV/Å³",
                threshold=None,
                source="",
                verdict="not-applicable",
                reason="OpenMM reports no virial",
            )
        )
    return outcome(checks, curves=[curve])


def displacements(atoms: Atoms, step: float) -> list[Atoms]:
    """For each coordinate in turn, the structure at each point of the stencil."""
    frames = []
    for coordinate in range(3 * len(atoms)):
        for k in POINTS:
            shift = np.zeros(3 * len(atoms))
            shift[coordinate] = k * step
            frames.append(displaced(atoms, shift.reshape(-1, 3)))
    return frames


def strains(atoms: Atoms, step: float) -> list[Atoms]:
    """For each Voigt component in turn, the structure at each point of the stencil; symmetric strains."""
    frames = []
    for a, b in VOIGT:
        for k in POINTS:
            deformation = np.eye(3)
            deformation[a, b] += 0.5 * k * step
            deformation[b, a] += 0.5 * k * step
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
            frames.append(strained)
    return frames


def forces(context: Context, base: Result, moved: list[Result], step: float, noise: float) -> tuple[list[Check], Curve]:
    """Every component against the energies, and the symmetry of the Jacobian of the forces."""
    limits = bounds(context)
    n = base.forces.size
    stencils = [moved[k * len(POINTS) : (k + 1) * len(POINTS)] for k in range(n)]
    energy = [derivative([result.energy for result in stencil], step) for stencil in stencils]
    numerical = -np.array([float(one.value) for one in energy])
    truncation = max(float(one.truncation) for one in energy)
    error = np.abs(numerical - base.forces.ravel())
    worst = int(np.argmax(error))
    checks = [
        judged(
            "largest difference of a force component from the energy's derivative",
            float(error[worst]),
            NOISE_GAIN * noise / step + truncation + limits.forces,
            "eV/Å",
            NOISE.format(noise=noise, step=step, unit="Å"),
            f"atom {worst // 3} (from 0), {'xyz'[worst % 3]}: force {base.forces.ravel()[worst]:.6g}, "
            f"-dE/dx {numerical[worst]:.6g} eV/Å",
        )
    ]
    jacobian_of = [derivative([-result.forces.ravel() for result in stencil], step) for stencil in stencils]
    jacobian = np.array([one.value for one in jacobian_of])
    rounding = max(largest(one.truncation) for one in jacobian_of)
    checks.append(
        judged(
            "largest antisymmetric part of the forces' Jacobian",
            largest(jacobian - jacobian.T) / 2.0,
            NOISE_GAIN * limits.forces / step + rounding,
            "eV/Å²",
            FORCE_NOISE,
            f"the forces have no potential; the largest element of the Jacobian is {largest(jacobian):.4g} eV/Å²",
        )
    )
    checks.append(
        judged(
            "net force",
            largest(base.forces.sum(axis=0)),
            n / 3 * limits.forces,
            "eV/Å",
            "the fidelity bound of each force, all of one sign",
        )
    )
    parity = Curve(
        title="Forces against derivatives of the energy",
        x_label="-dE/dx / eV/Å",
        y_label="force / eV/Å",
        series=[Series(label="", x=numerical.tolist(), y=base.forces.ravel().tolist(), style="points")],
        diagonal=True,
    )
    return checks, parity


def stresses(base: Result, strained: list[Result], step: float, noise: float, volume: float) -> list[Check]:
    """σ = (1/V) dE/dε for the six strains; a shear strain moves two off-diagonal elements by half each."""
    checks = []
    for c, name in enumerate(VOIGT_NAMES):
        energies: list[Array | float] = [r.energy for r in strained[c * len(POINTS) : (c + 1) * len(POINTS)]]
        found = derivative(energies, step)
        expected = float(found.value) / volume
        served = float("nan") if base.stress is None else float(base.stress[c])
        checks.append(
            judged(
                f"stress {name}: difference from the energy's derivative",
                abs(served - expected),
                (NOISE_GAIN * noise / step + float(found.truncation)) / volume,
                "eV/Å³",
                NOISE.format(noise=noise, step=step, unit="strain") + ", over the volume",
                f"stress {served:.6g}, dE/dε/V {expected:.6g} eV/Å³",
            )
        )
    return checks

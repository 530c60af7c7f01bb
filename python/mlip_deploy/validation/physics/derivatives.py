"""Forces and stress are derivatives of the energy, and the forces have a potential."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from mlip_deploy.progress import Progress
from mlip_deploy.report.content import Curve, Series
from mlip_deploy.result import VOIGT, Array, Result, voigt_to_tensor
from mlip_deploy.validation.case import Case, Check, Context, Outcome, judged, unmeasured
from mlip_deploy.validation.physics.stencil import LENGTH, NOISE_GAIN, POINTS, derivative, integral, step_for
from mlip_deploy.validation.physics.tools import (
    Bounds,
    bounds,
    case,
    displaced,
    evaluate,
    fixture_structures,
    largest,
    outcome,
)

STRUCTURES = ("odd number of atoms", "molecule without periodicity", "cell smaller than twice the cutoff")
"""Small ones, of which every component can be differentiated."""
STRAIN_PER_LENGTH = 0.4
"""1/Å: strain that moves neighbours (2.5 Å apart) as far as the step of a displacement."""
WORK = (
    "noise of two energies ({noise:.1e} eV each, the fidelity bound) over the path ({length:.3g} {unit}), noise of the "
    "forces or stresses (the fidelity bound), and Simpson's rule (fourth differences)"
)
FORCE_NOISE = (
    "central differences of eighth order: noise of the forces (the fidelity bound) over the step, and truncation "
    "(fourth differences)"
)
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
    step = step_for(bounds(context).energy_per_atom * len(atoms))
    frames = [atoms, *displacements(atoms, step)]
    no_strains = ""
    if context.engine == "openmm":
        no_strains = "OpenMM reports no virial"
    elif context.engine == "lammps" and context.artifact.fixtures().rotation_error is not None:
        no_strains = "LAMMPS turns strained cells, and rotations change the energy of this model. Type: --engine ase"
    if atoms.pbc.all() and not no_strains:
        frames += strains(atoms, STRAIN_PER_LENGTH * step)
    progress(f"{len(frames)} frames of {len(atoms)} atoms")
    base, *results = evaluate(context, frames)
    noise = bounds(context, [base]).energy_per_atom * len(atoms)
    moved, strained = results[: 3 * len(atoms) * len(POINTS)], results[3 * len(atoms) * len(POINTS) :]
    limits = bounds(context, [base])
    checks, curve = forces(limits, base, moved, step, noise)
    if strained:
        checks += stresses(limits, atoms, base, strained, STRAIN_PER_LENGTH * step, noise)
    elif atoms.pbc.all():
        checks.append(unmeasured("stress", "not-applicable", no_strains, unit="eV/Å³"))
    return outcome(checks, curves=[curve])


def displacements(atoms: Atoms, step: float, coordinates: Sequence[int] | None = None) -> list[Atoms]:
    """For each coordinate in turn, by default all 3 n, the structure at each point of the stencil."""
    frames = []
    for coordinate in range(3 * len(atoms)) if coordinates is None else coordinates:
        for k in POINTS:
            shift = np.zeros(3 * len(atoms))
            shift[coordinate] = k * step
            frames.append(displaced(atoms, shift.reshape(-1, 3)))
    return frames


def strains(atoms: Atoms, step: float) -> list[Atoms]:
    """For each Voigt component in turn, the structure at each point of the stencil; symmetric strains."""
    frames = []
    for component in range(len(VOIGT)):
        for k in POINTS:
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ (np.eye(3) + k * step * strain(component)), scale_atoms=True)
            frames.append(strained)
    return frames


def strain(component: int) -> Array:
    """The symmetric strain of a Voigt component; a shear moves two off-diagonal elements by half each."""
    a, b = VOIGT[component]
    tensor = np.zeros((3, 3))
    tensor[a, b] += 0.5
    tensor[b, a] += 0.5
    return tensor


def forces(
    limits: Bounds,
    base: Result,
    moved: Sequence[Result],
    step: float,
    noise: float,
    coordinates: Sequence[int] | None = None,
) -> tuple[list[Check], Curve]:
    """Components by their work along a path; if all 3 n moved, also the symmetry of the Jacobian of the forces."""
    paths = [_path(base, moved, k) for k in range(len(moved) // len(POINTS))]
    length = LENGTH * step
    by_energy, by_force, error = [], [], 0.0
    moving = range(len(paths)) if coordinates is None else coordinates
    for coordinate, nodes in zip(moving, paths, strict=True):
        work = integral([float(node.forces.ravel()[coordinate]) for node in nodes], step)
        by_force.append(work.value / length)
        by_energy.append(-(nodes[-1].energy - nodes[0].energy) / length)
        error = max(error, work.error / length)
    difference = np.abs(np.array(by_energy) - by_force)
    largest_at = int(np.argmax(difference))
    worst = moving[largest_at]
    checks = [
        judged(
            "largest difference between a force component and the slope of the energy, means over a path",
            float(difference[largest_at]),
            2 * noise / length + limits.forces + error,
            "eV/Å",
            WORK.format(noise=noise, length=length, unit="Å") + limits.remark,
            f"atom {worst // 3} (from 0), {'xyz'[worst % 3]}: force {by_force[largest_at]:.6g} eV/Å, -dE/dx "
            f"{by_energy[largest_at]:.6g} eV/Å",
        ),
        judged(
            "net force",
            largest(base.forces.sum(axis=0)),
            len(base.forces) * limits.forces,
            "eV/Å",
            "the fidelity bound of each force, all of one sign" + limits.remark,
        ),
    ]
    if coordinates is None:
        checks.append(_antisymmetry(limits, paths, step))
    parity = Curve(
        title="Forces against slopes of the energy",
        x_label="-dE/dx / eV/Å",
        y_label="force / eV/Å",
        series=[Series(label="", x=by_energy, y=by_force, style="points")],
        diagonal=True,
    )
    return checks, parity


def _antisymmetry(limits: Bounds, paths: list[list[Result]], step: float) -> Check:
    derivatives = [derivative(np.array([-node.forces.ravel() for node in path]), step) for path in paths]
    jacobian = np.array([value for value, _ in derivatives])
    return judged(
        "largest antisymmetric part of the forces' Jacobian",
        largest(jacobian - jacobian.T) / 2.0,
        NOISE_GAIN * limits.forces / step + max(bound for _, bound in derivatives),
        "eV/Å²",
        FORCE_NOISE + limits.remark,
        f"the forces have no potential; the largest element of the Jacobian is {largest(jacobian):.4g} eV/Å²",
    )


def _path(base: Result, moved: Sequence[Result], number: int) -> list[Result]:
    """The nine points of a path in their order."""
    points = moved[number * len(POINTS) : (number + 1) * len(POINTS)]
    return [*points[: len(POINTS) // 2], base, *points[len(POINTS) // 2 :]]


def stresses(
    limits: Bounds, atoms: Atoms, base: Result, strained: Sequence[Result], step: float, noise: float
) -> list[Check]:
    """dE = V σ : L for the six strains, where r' = r D changes by r' L ds with L = D⁻¹ dD/ds."""
    checks = []
    volume = atoms.get_volume()
    length = LENGTH * step
    for c, name in enumerate(VOIGT_NAMES):
        nodes = _path(base, strained, c)
        slopes = []
        for k, node in zip((*POINTS[: len(POINTS) // 2], 0, *POINTS[len(POINTS) // 2 :]), nodes, strict=True):
            deformation = np.eye(3) + k * step * strain(c)
            rate = np.linalg.inv(deformation) @ strain(c)
            stress = np.full(6, np.nan) if node.stress is None else node.stress
            slopes.append(float(volume * np.linalg.det(deformation) * (voigt_to_tensor(stress) * rate).sum()))
        work = integral(slopes, step)
        by_stress = work.value / length / volume
        by_energy = (nodes[-1].energy - nodes[0].energy) / length / volume
        checks.append(
            judged(
                f"stress {name}: difference from the slope of the energy, means over a path",
                abs(by_stress - by_energy),
                (2 * noise + work.error) / length / volume + limits.stress,
                "eV/Å³",
                WORK.format(noise=noise, length=length, unit="strain") + ", over the volume" + limits.remark,
                f"stress {by_stress:.6g}, dE/dε/V {by_energy:.6g} eV/Å³",
            )
        )
    return checks

"""What LAMMPS makes of a potential's virial: those of atoms, the pressure of barostats, and the heat flux."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from mlip_deploy.conformance.lammps import Output, dump
from mlip_deploy.conformance.probe import Probe, attempt, probe
from mlip_deploy.conformance.probes.lammps_runs import barostat, hot, refreshed, time_step_of
from mlip_deploy.conformance.trial import Trial
from mlip_deploy.engines.lammps import LAMMPSError
from mlip_deploy.engines.lammps_files import DumpFrame
from mlip_deploy.result import Array, voigt_to_tensor
from mlip_deploy.validation.case import Check, Outcome, judged, unmeasured
from mlip_deploy.validation.physics.dynamics import LEFT_OVER, STEPS
from mlip_deploy.validation.physics.tools import largest, outcome, reported

TENSOR = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
"""LAMMPS's order of the components of a pressure"""
PRESSURES = ("Pxx", "Pyy", "Pzz", "Pxy", "Pxz", "Pyz")
SHARE = 1e-3
"""of the change of the cell in a short run, which a barostat without the virial would change altogether"""


@probe("atomic-virials", engines=("lammps",))
def atomic_virials(trial: Trial) -> Outcome:
    """Virials of the atoms add up to the virial of the structure.

    `compute stress/atom` and `compute centroid/stress/atom`, summed over all atoms, against `compute pressure` times
    the volume. Local stresses and heat fluxes are made of them; an array that is not filled gives zeros. The centroid
    form is optional: LAMMPS refuses it for styles that do not declare it. The threshold is the noise of the stress.
    """
    checks = []
    volume = trial.large.get_volume()
    if not trial.atoms.pbc.all():
        return outcome([unmeasured("virials", "not-applicable", "the structure is not periodic in three directions")])
    for style, components in (("stress/atom", (1, 2, 3, 4, 5, 6)), ("centroid/stress/atom", (1, 2, 3, 4, 5, 6))):
        sums = " ".join(f"$(c_sums[{k}]:%.17g)" for k in components)
        pressures = " ".join(f"$(-c_conform_virial[{k}]*vol:%.17g)" for k in range(1, 7))
        body = (
            f"compute atoms all {style} NULL virial\ncompute sums all reduce sum c_atoms[*]\n"
            "thermo_style custom step pe vol c_conform_virial[1] c_sums[1]\nrun 0 post no\n"
            f'print "conform sums {sums}"\nprint "conform virial {pressures}"\n'
        )
        try:
            found = trial.lammps.deck(trial.large, body)
        except LAMMPSError as error:
            if style == "stress/atom":
                raise
            checks.append(unmeasured(style, "not-supported", str(error)))
            continue
        scale = trial.lammps.scale.energy / trial.lammps.scale.nktv2p / volume
        difference = largest(np.array(found.values("sums")) - found.values("virial")) * scale
        checks.append(
            judged(
                f"sum of {style} against the virial, over the volume",
                difference,
                4 * trial.limits.stress,
                "eV/Å³",
                "noise of the stress, twice for each",
                f"a component of the virial is {largest(np.array(found.values('virial'))) * scale:.3g} eV/Å³",
            )
        )
    return outcome(checks)


@probe("thermo-pressure", engines=("lammps",))
def thermo_pressure(trial: Trial) -> Outcome:
    """The pressure in the middle of a run is the virial of that step and the kinetic part.

    The pressure tensor that `thermo` prints during NVE and under a barostat (`fix nph`) is compared with the virial of
    the same positions in a new run and the kinetic tensor of the velocities. Then the same run under the barostat
    prints nothing, so that the energy is not asked for, and must give the same cell and positions. A potential that
    gives the virial only where the energy is wanted makes a barostat work on the kinetic pressure alone. The threshold
    is the noise of the stress and a millionth of the pressure for the digits of constants; for cell and positions a
    thousandth of their change.
    """
    if not trial.atoms.pbc.all():
        return outcome([unmeasured("pressure", "not-applicable", "the structure is not periodic in three directions")])

    def during_nve() -> list[Check]:
        body = (
            hot(trial) + "fix nve all nve\nthermo 3\n"
            "thermo_style custom step pe pxx pyy pzz pxy pxz pyz\n"
            "thermo_modify format float %.17g norm no\n" + dump("nve", 3, "fx fy fz vx vy vz mass") + "run 6\n"
        )
        found = trial.lammps.deck(trial.large, body)
        columns = found.thermo(0)
        pressures = np.array([columns[name][1:] for name in PRESSURES]).T
        return _compare(trial, "NVE", found, found.dumps["nve"][1:], pressures)

    def under_a_barostat() -> list[Check]:
        tensor = "thermo_style custom step pe pxx pyy pzz pxy pxz pyz\nthermo_modify format float %.17g norm no\n"
        start = hot(trial) + barostat(trial) + tensor
        # A dump asks for the energy at its steps.
        printed, silent = (
            trial.lammps.deck(trial.large, start + dump("nph", n, "fx fy fz vx vy vz mass") + f"thermo {n}\nrun 8\n")
            for n in (1, 8)
        )
        columns, at = printed.thermo(0), [3, 5]
        pressures = np.array([columns[name][at] for name in PRESSURES]).T
        checks = _compare(trial, "fix nph", printed, [printed.dumps["nph"][k] for k in at], pressures)
        first, one = printed.dumps["nph"][0].atoms, printed.dumps["nph"][-1].atoms
        two = silent.dumps["nph"][-1].atoms
        for what, before, printing, none in (
            ("cell", first.cell.array, one.cell.array, two.cell.array),
            ("positions", first.positions, one.positions, two.positions),
        ):
            checks.append(
                judged(
                    f"fix nph: {what} after 8 steps, with energies printed at each against printed at none",
                    largest(printing - none),
                    SHARE * largest(printing - before),
                    "Å",
                    f"{SHARE:g} of the change over the run",
                    "the potential gives something else where no energy is asked for",
                )
            )
        return checks

    return outcome(attempt("thermo during NVE", during_nve) + attempt("fix nph", under_a_barostat))


def _compare(trial: Trial, label: str, found: Output, frames: list[DumpFrame], printed: Array) -> list[Check]:
    """Pressure tensors [frames, 6] in LAMMPS's order against fresh virials."""
    units = trial.lammps.scale
    checks = []
    for frame, fresh, pressure in zip(frames, refreshed(trial, frames), printed, strict=True):
        volume = frame.atoms.get_volume()
        velocities = frame.vectors("v")
        masses = frame.columns["mass"]  # which a potential's file may have set
        kinetic = (
            units.mvv2e
            * units.energy
            * (masses[:, None, None] * velocities[:, :, None] * velocities[:, None, :]).sum(0)
        )
        assert fresh.stress is not None
        expected = kinetic / volume - voigt_to_tensor(fresh.stress)
        served = pressure * units.energy / units.nktv2p
        difference = max(abs(served[k] - expected[a, b]) for k, (a, b) in enumerate(TENSOR))
        digits = 1e-6 * largest(expected)
        checks.append(
            judged(
                f"{label}, step {frame.step}: pressure against virial and kinetic part",
                float(difference),
                4 * trial.limits.stress + digits,
                "eV/Å³",
                "noise of the stress, and a millionth of the pressure for the digits of LAMMPS's constants",
                f"kinetic part {largest(kinetic) / volume:.4g}, virial {largest(fresh.stress):.4g} eV/Å³",
            )
        )
    return checks


@probe("energy-transport", engines=("lammps",))
def energy_transport(trial: Trial) -> Outcome:
    """The heat flux of a cluster in vacuum, integrated over time, is the energy that moved: the change of Σ r (E + K).

    The atoms of the structure without periodicity, at 1160 K without a thermostat. Positions, atomic energies and
    kinetic energies at each of 100 steps against the integral of `compute heat/flux` with `compute
    centroid/stress/atom`, which LAMMPS wants for potentials of many bodies; then twice as many steps of half their
    length. Nothing leaves a cluster, so that this is how energies of atoms and virials of atoms must fit together: a
    potential that shares them out in two ways gives a thermal conductivity that looks right. The error of velocity
    Verlet and of the trapezoidal rule falls as the square of the step; the threshold of what is left at a step of zero
    is 0.15 of the difference at the longer step, as for nve, and the noise of energies and forces of the atoms at their
    distances from the centre.
    """
    atoms = trial.large.copy()
    atoms.pbc = False
    coarse, moved, noise = _untold(trial, atoms, 1)
    fine, _, _ = _untold(trial, atoms, 2)
    left = largest((4.0 * fine - coarse) / 3.0)
    most, total = largest(coarse), largest(moved)
    if noise > total:
        return outcome([unmeasured("energy that moved", "not-tested", f"{total:.3g} eV Å are less than the noise")])
    return outcome(
        [
            judged(
                "energy that moved and is not in the flux, extrapolated to a time step of zero",
                left,
                LEFT_OVER * most + noise,
                "eV Å",
                f"{LEFT_OVER:g} of that at the longer step (the next order is that small), and the noise",
                f"of {total:.3g} eV Å that moved; {most:.3g} at the longer step, {largest(fine):.3g} at half of it",
            ),
            reported("energy that moved", total, "eV Å"),
        ]
    )


def _untold(trial: Trial, atoms: Atoms, parts: int) -> tuple[Array, Array, float]:
    """Of a cluster over STEPS time steps that are cut into parts.

    Returns:
        what the flux does not account for, what moved [STEPS + 1, 3], and their noise, in eV Å
    """
    step = time_step_of(trial) / parts
    body = (
        hot(trial) + f"timestep {step:.17g}\nfix nve all nve\n"
        "compute kinetic all ke/atom\ncompute virials all centroid/stress/atom NULL virial\n"
        "compute flux all heat/flux kinetic conform_energy virials\n"
        "thermo 1\nthermo_style custom step pe c_flux[1] c_flux[2] c_flux[3]\n"
        "thermo_modify format float %.17g norm no\n"
        + dump("cluster", 1, "c_kinetic c_conform_energy")
        + f"run {STEPS * parts}\n"
    )
    found = trial.lammps.deck(atoms, body)
    columns, frames = found.thermo(0), found.dumps["cluster"]
    flux = np.array([columns[f"c_flux[{k}]"] for k in (1, 2, 3)]).T
    positions = np.array([frame.atoms.positions for frame in frames])
    positions -= positions[0].mean(axis=0)
    energies = np.array([frame.columns["c_kinetic"] + frame.columns["c_conform_energy"] for frame in frames])
    moved = np.einsum("sn,snk->sk", energies, positions)
    told = np.zeros_like(moved)
    told[1:] = np.cumsum(0.5 * step * (flux[1:] + flux[:-1]), axis=0)
    way = float(np.linalg.norm(positions - positions[0], axis=2).max())
    limits, reach = trial.limits, float(np.linalg.norm(positions[0], axis=1).sum())
    scale = trial.lammps.scale.energy
    moved = moved[::parts] - moved[0]
    return scale * (moved - told[::parts]), scale * moved, (limits.atomic_energies + limits.forces * way) * reach


PROBES: tuple[Probe, ...] = (atomic_virials, thermo_pressure, energy_transport)

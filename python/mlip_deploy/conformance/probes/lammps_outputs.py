"""What LAMMPS makes of a potential's virial: those of atoms, and the pressure that thermo prints and barostats use."""

from __future__ import annotations

import numpy as np

from mlip_deploy.conformance.lammps import Output, dump
from mlip_deploy.conformance.probe import Probe, attempt, probe
from mlip_deploy.conformance.probes.lammps_runs import barostat, hot, refreshed
from mlip_deploy.conformance.trial import Trial
from mlip_deploy.engines.lammps import LAMMPSError
from mlip_deploy.engines.lammps_files import DumpFrame
from mlip_deploy.result import Array, voigt_to_tensor
from mlip_deploy.validation.case import Check, Outcome, judged, unmeasured
from mlip_deploy.validation.physics.tools import largest, outcome

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


PROBES: tuple[Probe, ...] = (atomic_virials, thermo_pressure)

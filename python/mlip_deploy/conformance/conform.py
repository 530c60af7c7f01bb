"""`mlip_deploy.conform`: hold a potential, inside its engine, to what every potential must obey there.

OUT/cases/conform/PROBE.json   one outcome with the key under which it holds; a run that was interrupted goes on there
OUT/conformance.json           every number, threshold, source and verdict
OUT/badge.json                 one line, as shields.io reads it
OUT/report.html                the same to read (mlip_deploy.conformance.report)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from ase import Atoms

import mlip_deploy
from mlip_deploy.conformance import report
from mlip_deploy.conformance.ase import ASETarget
from mlip_deploy.conformance.lammps import LAMMPSTarget
from mlip_deploy.conformance.probe import Probe
from mlip_deploy.conformance.probes import PROBES
from mlip_deploy.conformance.result import Conformance
from mlip_deploy.conformance.sources import factory, read_structure
from mlip_deploy.conformance.trial import Target, Trial, measured_trial
from mlip_deploy.engines import require_engine
from mlip_deploy.errors import MLIPError
from mlip_deploy.files import require_folder, temporary_folder, write_text
from mlip_deploy.progress import Progress, silent
from mlip_deploy.validation.case import Outcome
from mlip_deploy.validation.run import file_name, run_or_read

RANKS = (1, 2, 4)


def conform(
    engine: str,
    potential: str | Callable[..., Any],
    structure: str | Path | Atoms,
    *,
    reference: str | Callable[..., Any] | None = None,
    elements: Sequence[str] = (),
    ranks: Sequence[int] = RANKS,
    probes: Sequence[str] = (),
    thorough: bool = False,
    out: str | Path | None = None,
    progress: Progress = silent,
) -> Conformance:
    """Run the probes on a potential in its engine.

    Parameters
    ----------
    engine
        "lammps", "openmm" or "ase".
    potential
        For LAMMPS its commands, separated by semicolons: "pair_style sw; pair_coeff * * Si.sw Si". For ASE what makes
        a calculator, for OpenMM a function that makes a System of a Topology; or the name of either, "MODULE:FACTORY"
        or "FILE.py:FACTORY".
    structure
        A file or an object with atoms that feel each other. It is rattled by 0.05 Å and, where it is periodic in three
        directions, sheared by 2 %, so that no symmetry hides an error.
    reference
        The original to compare with: "ase:MODULE:FACTORY", or a factory of ASE calculators.
    elements
        Of LAMMPS's types, in order. By default those of the file: of a data file by its masses, of any other in the
        order of first appearance.
    ranks
        MPI ranks to compare, LAMMPS.
    probes
        Names of the probes to run; when empty, all short ones.
    thorough
        Also run the long probes.
    out
        Folder for every outcome and a report; run again to go on.
    progress
        Called with a line of text before each probe.

    Returns
    -------
    Conformance
        Every check with its threshold and verdict.

    Raises
    ------
    MLIPError
        For wrong input: an engine, probe or file that is not there, or a structure that the potential cannot run.
    """
    require_engine(engine)
    chosen = _chosen(engine, probes, thorough)
    if out is not None:
        require_folder(out)
    atoms, types = (structure, []) if isinstance(structure, Atoms) else read_structure(structure)
    types = list(elements) or types or list(dict.fromkeys(atoms.get_chemical_symbols()))
    unknown = set(atoms.get_chemical_symbols()) - set(types)
    if unknown:
        raise MLIPError(f"{', '.join(sorted(unknown))} is in the structure, and not in --elements {','.join(types)}")
    target = _target(engine, potential, types)
    original = None if reference is None else ASETarget(*factory(reference))
    try:
        if out is not None:
            return _run(Path(out), target, original, atoms, ranks, chosen, progress)
        with temporary_folder("mlip-conform-") as folder:
            return _run(folder, target, original, atoms, ranks, chosen, progress)
    finally:
        target.close()
        if original is not None:
            original.close()


def _target(engine: str, potential: str | Callable[..., Any], types: Sequence[str]) -> Target:
    if engine == "lammps":
        if not isinstance(potential, str):
            raise MLIPError("a potential in LAMMPS is given by its commands, as text")
        return LAMMPSTarget(potential, types)
    if engine == "ase":
        return ASETarget(*factory(potential), types)
    from mlip_deploy.conformance.openmm import OpenMMTarget  # which loads torch, for this engine alone

    return OpenMMTarget(*factory(potential), types)


def _chosen(engine: str, names: Sequence[str], thorough: bool) -> list[Probe]:
    known = {probe.name: probe for probe in PROBES if engine in probe.engines}
    absent = [name for name in names if name not in known]
    if absent:
        raise MLIPError(f"'{absent[0]}' is not one of the probes for {engine}: {', '.join(known)}")
    return [p for p in known.values() if p.name in names or (not names and (thorough or not p.thorough))]


def _watched(probe: Probe, trial: Trial, path: Path, key: str, _: Progress) -> Outcome:
    """Run a probe, unless the process ended while it ran the last time: code that ASE or OpenMM calls can do that."""
    begun = path.with_suffix(".begun")
    if begun.exists() and begun.read_text() == key:
        begun.unlink()
        reason = f"the process ended while this probe ran, without a message. To try again, delete {path}"
        return probe.crashed(trial, reason)
    write_text(begun, key)
    try:
        return probe.run(trial)
    finally:
        begun.unlink()


def _run(
    folder: Path,
    target: Target,
    reference: ASETarget | None,
    atoms: Atoms,
    ranks: Sequence[int],
    probes: Sequence[Probe],
    progress: Progress,
) -> Conformance:
    progress("noise of the potential")
    trial = measured_trial(target, atoms, reference=reference, ranks=tuple(ranks))
    description = target.describe()
    description["versions"] = {"mlip-deploy": mlip_deploy.__version__, **description["versions"]}
    depends = {
        "target": description,
        "structure": [atoms.positions.tolist(), atoms.cell.array.tolist(), atoms.numbers.tolist(), atoms.pbc.tolist()],
        "reference": reference and reference.describe(),
        "ranks": list(ranks),
    }
    outcomes, seconds = [], {}
    for number, probe in enumerate(probes, 1):
        key = hashlib.sha256(json.dumps([depends, probe.name], sort_keys=True).encode()).hexdigest()
        path = folder / "cases" / "conform" / f"{file_name(probe.name)}.json"
        label = f"[{number}/{len(probes)}] {probe.name}"
        stored = run_or_read(path, key, partial(_watched, probe, trial, path, key), label, progress)
        outcomes.append(stored.outcome)
        seconds[probe.name] = round(stored.seconds, 2)
    found = Conformance(
        engine=target.engine,
        potential=target.name,
        description=description,
        structure=f"{atoms.get_chemical_formula()}, {len(atoms)} atoms",
        noise=asdict(trial.noise),
        outcomes=outcomes,
        seconds=seconds,
    )
    write_text(folder / "conformance.json", found.model_dump_json(indent=1) + "\n")
    write_text(folder / "badge.json", found.badge() + "\n")
    write_text(folder / "report.html", report.page(found))
    return found

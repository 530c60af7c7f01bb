"""`mlip doctor --lammps DIR`: what a LAMMPS of one's own has, and what follows for pair_style mlip."""

from __future__ import annotations

from pathlib import Path

from mlip_deploy.environment.build_plugin import find_mpi
from mlip_deploy.environment.doctor import Finding
from mlip_deploy.environment.lammps_headers import LAMMPSHeaders, NotUsableError, find_lammps
from mlip_deploy.environment.lammps_program import LAMMPSProgram, ask, find_program, lammps_root
from mlip_deploy.errors import MLIPError


def examine_lammps(given: Path | None) -> list[Finding]:
    """Of the LAMMPS in this folder, or of the one that `mlip deploy lammps` would take."""
    try:
        root = lammps_root(given)
    except MLIPError as error:
        return [Finding("LAMMPS", "not found", str(error), "mlip doctor --lammps DIR")]
    deploy = f"mlip deploy lammps --lammps-root {root}"
    program, told = _program(root)
    headers, findings = _headers(root, program, deploy)
    findings = [told, *findings]
    if program is not None:
        findings += [_plugin(program, headers), _mpi(root, program, deploy), _integers(program)]
    if all(finding.ok for finding in findings):
        findings.append(Finding("to build it", deploy))
    return findings


def _program(root: Path) -> tuple[LAMMPSProgram | None, Finding]:
    path = find_program(root)
    if path is None:
        return None, Finding("LAMMPS", f"{root}, without a program lmp")
    try:
        program = ask(path)
    except MLIPError as error:
        remedy = (
            "module load MPI   (the one that LAMMPS was built with, in your system's words), and this command again"
        )
        return None, Finding("LAMMPS", str(path), str(error), remedy)
    return program, Finding("LAMMPS", f"{program.release}, {path}")


def _headers(root: Path, program: LAMMPSProgram | None, deploy: str) -> tuple[LAMMPSHeaders | None, list[Finding]]:
    try:
        headers = find_lammps(root, program.version if program else None)
    except NotUsableError as error:
        return None, [Finding("headers", "not usable", str(error), f"{deploy.rpartition(' ')[0]} SOURCE_FOLDER")]
    library = headers.library or "none: its program holds all of it"
    return headers, [Finding("headers", str(headers.include)), Finding("library", str(library))]


def _plugin(program: LAMMPSProgram, headers: LAMMPSHeaders | None) -> Finding:
    if program.has_plugins:
        return Finding("PLUGIN", "yes: the input file loads the pair style with `plugin load`")
    if headers is None or headers.library is None:
        problem = "it has neither the PLUGIN package nor a shared library, one of which the pair style needs"
        return Finding(
            "PLUGIN", "no", problem, "cmake -DPKG_PLUGIN=on -DBUILD_SHARED_LIBS=on   (and build LAMMPS again)"
        )
    return Finding("PLUGIN", "no: start lmp-mlip, which `mlip deploy lammps` builds, in the place of lmp")


def _mpi(root: Path, program: LAMMPSProgram, deploy: str) -> Finding:
    try:
        flags = find_mpi(root, program.mpi, None)
    except MLIPError as error:
        return Finding("MPI", program.mpi, str(error), f"{deploy} --mpi-include DIR")
    return Finding("MPI", f"{program.mpi}, headers in {flags[0].removeprefix('-I')}")


def _integers(program: LAMMPSProgram) -> Finding:
    what = {
        "LAMMPS_SMALLBIG": "up to 2 billion atoms with ids",
        "LAMMPS_BIGBIG": "more than 2 billion atoms with ids",
        "LAMMPS_SMALLSMALL": "up to 2 billion atoms and steps",
    }
    return Finding("integers", "; ".join(f"{name}, {what[name]}" for name in program.definitions))

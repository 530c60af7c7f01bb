"""`mlip info`: show an artifact's contract."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from mlip_deploy.cli.console import STANDARD_OUTPUT, escape, require_json, show, write_json
from mlip_deploy.cli.options import add_json
from mlip_deploy.errors import MLIPError

if TYPE_CHECKING:
    from mlip_deploy.artifact.reader import Artifact


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The file."""
    parser.add_argument("file", type=Path, help="artifact written by `mlip export`")
    add_json(parser, "the contract")


def run(options: argparse.Namespace) -> int:
    """Print the contract in words."""
    from mlip_deploy.artifact.reader import Artifact

    require_json(options.json)
    artifact = Artifact(options.file)
    contract = artifact.contract
    if options.json:
        write_json(options.json, artifact.contract_text())
    if options.json == STANDARD_OUTPUT:
        return 0
    fixtures = artifact.fixtures()
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    noise = fixtures.float32_noise
    compiled_for = f", compiled for {contract.compiled_for.describe()}" if contract.compiled_for else ""
    for name, value in [
        ("model", f"{contract.model.name} ({contract.model.family}), licence {contract.model.license}"),
        ("citation", contract.model.citation),
        ("source", f"sha256 {contract.model.source_sha256}"),
        (
            "written by",
            f"{contract.producer.package} {contract.producer.version}, torch {contract.producer.torch}, "
            f"schema {contract.schema_version}",
        ),
        ("back end", f"{contract.backend}, {contract.dtype}{compiled_for}"),
        ("elements", f"{len(contract.elements)}: {' '.join(contract.elements)}"),
        (
            "range",
            f"cutoff {contract.cutoff:g} Å, {contract.message_passing_layers} message-passing layers, "
            f"interaction range {contract.interaction_range:g} Å",
        ),
        ("parallel", contract.parallel),
        ("energies", contract.energy_frame.describe()),
        ("inputs", ", ".join(f"{i.name} = {i.value} (of {', '.join(i.choices)})" for i in contract.inputs) or "none"),
        ("settings", "; ".join(f"{s.name}: {s.describe()}" for s in contract.settings) or "none"),
        ("positions", f"and cell, in {contract.positions} cells" if contract.positions else "through edges alone"),
        ("outputs", ", ".join(output.describe() for output in contract.outputs)),
        ("one atom's energy", "meaningful" if contract.atomic_energies_meaningful else "an arbitrary share of the sum"),
        ("heat flux", f"not exact: {contract.inexact_heat_flux}" if contract.inexact_heat_flux else "exact"),
        ("operators", ", ".join(f"{name} {version}" for name, version in contract.operators.items()) or "none"),
        ("domain", _domain(artifact)),
        (
            "fixtures",
            f"{len(fixtures.structures)} structures from {fixtures.reference}; float32 noise "
            f"{noise.energy_per_atom:.1e} eV/atom, {noise.forces:.1e} eV/Å, {noise.stress:.1e} eV/Å³, "
            f"isolated atom {fixtures.isolated_atom_noise:.1e} eV",
        ),
        ("validated", _validated(artifact)),
    ]:
        table.add_row(name, escape(value))
    show(table)
    return 0


def _domain(artifact: Artifact) -> str:
    """What grades are distances from."""
    if artifact.contract.features is None:
        return "none: the file has no features"
    try:
        domain = artifact.domain()
    except MLIPError as error:
        return f"none: {error}"
    return domain.describe() if domain else f"none. Type: mlip domain fit {artifact.path} --frames FRAMES.extxyz"


def _validated(artifact: Artifact) -> str:
    """What the validation record says, and where it does not hold."""
    from mlip_deploy.artifact.gate import line_to_type, problem

    try:
        record = artifact.validation_record()
    except MLIPError as error:
        return f"no: {error}"
    if record is None:
        return f"no. Type: {line_to_type(artifact)}"
    tested = f"{record.describe()}, physics with {len(record.elements)} of {len(artifact.contract.elements)} elements"
    if record.verdict == "fail":
        return f"no: failed in {tested}: {'; '.join(record.failures)}. Type: {line_to_type(artifact)}"
    doubts = {engine: problem(artifact, engine) for engine in record.engines}
    stale = "; ".join(f"not for {engine}: {doubt}" for engine, doubt in doubts.items() if doubt)
    return tested + (f". Stale: {stale}. Type: {line_to_type(artifact)}" if stale else "")

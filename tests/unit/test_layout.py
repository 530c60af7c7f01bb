"""The floors of csrc and of python: what a folder may include or import. Arrows go down, never up or in a circle."""

from __future__ import annotations

import ast
import re
from pathlib import Path

CSRC = Path(__file__).parents[2] / "csrc"

# Folder -> folders that it may include, beside itself. A folder of csrc/operators may include csrc/operators, not its
# sisters.
ALLOWED = {
    "core": set[str](),
    "gpu": {"core"},
    "operators": {"core", "gpu"},
    "operators/adaptive_cutoffs": {"operators"},
    "operators/angle_sums": {"operators"},
    "operators/edge_harmonics": {"core", "gpu", "operators"},
    "operators/edge_perceptron": {"operators"},
    "operators/edge_tensor_product": {"core", "gpu", "operators"},
    "operators/environment_product": {"operators"},
    "operators/equivariant_linear": {"core", "operators"},
    "operators/feed_forward": {"operators"},
    "operators/gate": {"core", "gpu", "operators"},
    "operators/gated_addition": {"operators"},
    "operators/long_range_pairs": {"operators"},
    "operators/neighbour_attention": {"operators"},
    "operators/so2_convolution": {"operators"},
    "operators/symmetric_contraction": {"core", "gpu", "operators"},
    "operators/symmetry_functions": {"operators"},
    "operators/token_attention": {"operators"},
    "model": {"core", "gpu"},
    "lammps": {"core", "model"},
    "openmm": {"core", "model"},
    "bindings": {"core", "model"},
}
SUFFIXES = {".h", ".cpp", ".cu"}


def includes() -> list[tuple[str, str]]:
    """Every include of one file of csrc by another, as (file, file that it includes), relative to csrc."""
    found = []
    for source in sorted(path for path in CSRC.rglob("*") if path.suffix in SUFFIXES):
        for name in re.findall(r'^\s*#\s*include\s+"([^"]+)"', source.read_text(), flags=re.MULTILINE):
            # Shells name files of their own folder without it; what is in neither place is an engine's header.
            for included in (source.parent / name, CSRC / name):
                if included.exists():
                    found.append((str(source.relative_to(CSRC)), str(included.relative_to(CSRC))))
                    break
    return found


def folder(file: str) -> str:
    return str(Path(file).parent)


def test_every_folder_of_csrc_has_its_floor() -> None:
    assert {folder(str(path.relative_to(CSRC))) for path in CSRC.rglob("*") if path.suffix in SUFFIXES} == set(ALLOWED)


def test_includes_go_down() -> None:
    found = includes()
    assert ("model/model.cpp", "core/archive.h") in found  # they are seen at all
    upwards = [
        f"csrc/{file} includes {included}"
        for file, included in found
        if folder(included) not in ALLOWED[folder(file)] | {folder(file)}
    ]
    assert not upwards, "\n".join(upwards)


# ---- Python -------------------------------------------------------------------------------------------------------

PACKAGE = Path(__file__).parents[2] / "python" / "mlip_deploy"

FLOORS = [
    {"close_atoms", "errors", "progress", "result", "signals"},
    {"libraries"},
    {"_core", "operators"},
    {"files", "guard"},
    {"artifact"},
    {"ase", "openmm", "report"},
    {"engines", "exporters"},
    {"environment", "preparation"},
    {"simulation"},
    {"bench", "reference_data"},
    {"domain"},
    {"validation"},
    {"comparison", "conformance"},
    {"datasheets"},
    {"cli"},
]
"""Modules and packages of mlip_deploy, the ground floor first. What stands above may import what stands below."""


def imports() -> list[tuple[str, str, str]]:
    """Every import of one module by another, those inside functions too: (file, its package, imported package)."""
    found = []
    for source in sorted(PACKAGE.rglob("*.py")):
        file = source.relative_to(PACKAGE)
        if file.name == "__init__.py" and len(file.parts) == 1:
            continue  # the face of the package names what users call
        for node in ast.walk(ast.parse(source.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            packages = {name.split(".")[1] for name in names if name.startswith("mlip_deploy.") and name.count(".")}
            known = set.union(*FLOORS)
            found += [(str(file), file.parts[0].removesuffix(".py"), package) for package in packages & known]
    return found


def test_every_module_of_python_has_its_floor() -> None:
    found = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert found - {"__init__", "__pycache__"} <= set.union(*FLOORS)


def test_imports_go_down() -> None:
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    found = imports()
    assert ("validation/validate.py", "validation", "artifact") in found  # they are seen at all
    upwards = [
        f"{file} imports {package}" for file, own, package in found if own != package and floor[package] >= floor[own]
    ]
    assert not upwards, "\n".join(upwards)

"""Foundation interatomic potentials as one file, served in LAMMPS, OpenMM and ASE. Å, eV and eV/Å throughout.

import mlip_deploy as mlip

path = mlip.export("sevennet", "7net-0", "7net-0.mlip.pt")  # a checkpoint becomes one file
mlip.check(path).passed                                      # does each engine compute what the original computes?
mlip.validate(path, out="validation").passed                 # does it obey physics there?
atoms.calc = mlip.MLIPCalculator(path)                       # ASE; for OpenMM, MLIPForce; in LAMMPS, pair_style mlip

Keywords are the options of the command `mlip`. Everything is imported when it is asked for: `import mlip_deploy` takes
no time, and torch is loaded by what needs it.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

# Before torch is loaded, and for each LAMMPS that is started: why, says bound_spinning() of csrc/lammps/plugin.cpp.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

if TYPE_CHECKING:
    from mlip_deploy.artifact.contract import Contract, EnergyFrame, Setting
    from mlip_deploy.artifact.gate import ValidationRecordWarning
    from mlip_deploy.artifact.reader import Artifact
    from mlip_deploy.ase import MLIPCalculator, evaluate_many
    from mlip_deploy.comparison.compare import compare
    from mlip_deploy.comparison.content import ModelComparison
    from mlip_deploy.conformance.conform import conform
    from mlip_deploy.conformance.result import Conformance
    from mlip_deploy.datasheets.atlas import atlas
    from mlip_deploy.datasheets.datasheet import datasheet
    from mlip_deploy.datasheets.evidence import Atlas, Sheet
    from mlip_deploy.domain.fit import fit_domain
    from mlip_deploy.domain.select import select_frames
    from mlip_deploy.errors import MLIPError
    from mlip_deploy.exporters.compose import compose
    from mlip_deploy.exporters.export import export
    from mlip_deploy.exporters.module import export_module
    from mlip_deploy.openmm import MLIPForce
    from mlip_deploy.preparation.prepare import Prepared, prepare
    from mlip_deploy.result import Evaluation, Result
    from mlip_deploy.simulation.content import Run
    from mlip_deploy.simulation.run import run
    from mlip_deploy.validation.fidelity import Comparison, FidelityReport, check
    from mlip_deploy.validation.run import Validation
    from mlip_deploy.validation.validate import validate

    __version__: str

__all__ = [
    "Artifact",
    "Atlas",
    "Comparison",
    "Conformance",
    "Contract",
    "EnergyFrame",
    "Evaluation",
    "FidelityReport",
    "MLIPCalculator",
    "MLIPError",
    "MLIPForce",
    "ModelComparison",
    "Prepared",
    "Result",
    "Run",
    "Setting",
    "Sheet",
    "Validation",
    "ValidationRecordWarning",
    "__version__",
    "atlas",
    "check",
    "compare",
    "compose",
    "conform",
    "datasheet",
    "evaluate_many",
    "export",
    "export_module",
    "fit_domain",
    "prepare",
    "run",
    "select_frames",
    "validate",
]

_MODULES = {
    "Artifact": "artifact.reader",
    "Atlas": "datasheets.evidence",
    "Comparison": "validation.fidelity",
    "Conformance": "conformance.result",
    "Contract": "artifact.contract",
    "EnergyFrame": "artifact.contract",
    "Setting": "artifact.contract",
    "Evaluation": "result",
    "FidelityReport": "validation.fidelity",
    "MLIPCalculator": "ase",
    "MLIPError": "errors",
    "MLIPForce": "openmm",
    "ModelComparison": "comparison.content",
    "Prepared": "preparation.prepare",
    "prepare": "preparation.prepare",
    "Result": "result",
    "Run": "simulation.content",
    "Sheet": "datasheets.evidence",
    "run": "simulation.run",
    "ValidationRecordWarning": "artifact.gate",
    "Validation": "validation.run",
    "atlas": "datasheets.atlas",
    "check": "validation.fidelity",
    "compare": "comparison.compare",
    "compose": "exporters.compose",
    "conform": "conformance.conform",
    "datasheet": "datasheets.datasheet",
    "evaluate_many": "ase",
    "export": "exporters.export",
    "export_module": "exporters.module",
    "fit_domain": "domain.fit",
    "select_frames": "domain.select",
    "validate": "validation.validate",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is asked for the first time."""
    if name == "__version__":
        value: object = import_module("importlib.metadata").version("mlip-deploy")
    elif name in _MODULES:
        value = getattr(import_module(f"mlip_deploy.{_MODULES[name]}"), name)
    else:
        raise AttributeError(f"module 'mlip_deploy' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""The other side of a comparison: a model in the framework that trained it, on any device, with its accelerators."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from ase import Atoms
from ase.calculators.calculator import all_changes

from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.bench import ACCELERATORS
from mlip_deploy.errors import MLIPError


@dataclass(frozen=True)
class Framework:
    """The model of an artifact in the framework that trained it, in the artifact's precision."""

    artifact: str
    source: str
    """name or checkpoint file, as `mlip export` takes it"""
    accelerator: str | None = None
    """one of ACCELERATORS"""
    trust_checkpoint: bool = False

    def __str__(self) -> str:
        return f"original ({self.source}{f', {self.accelerator}' if self.accelerator else ''})"


def parse_framework(text: str, artifact: str, trust_checkpoint: bool = False) -> Framework | None:
    """What --against says: "original", "original+flash", "original:CHECKPOINT" or "original+flash:CHECKPOINT".

    Returns:
        None for anything else, the path of an artifact.

    Raises:
        MLIPError: for an accelerator that is not known or not installed.
    """
    head, _, source = text.partition(":")
    name, plus, accelerator = head.partition("+")
    if name != "original":
        return None
    if plus:
        if accelerator not in ACCELERATORS:
            raise MLIPError(f"--against {text}: '{accelerator}' is not one of {', '.join(ACCELERATORS)}")
        package, install = ACCELERATORS[accelerator]
        if importlib.util.find_spec(package) is None:
            raise MLIPError(f"--against {text}: the package '{package}' is not installed. Type: {install}")
    source = source or Artifact(artifact).contract.model.name
    return Framework(artifact, source, accelerator or None, trust_checkpoint)


def framework_runner(framework: Framework, device: str) -> Callable[[Atoms], Any]:
    """Evaluates energy, forces and stress of a structure.

    On the CPU, in the artifact's precision by the code that its reference values come from; on any other device, and
    with an accelerator, by the framework's own ASE calculator, as its users set it up.

    Raises:
        MLIPError: for a family that has no framework, no such calculator or no such accelerator.
    """
    from mlip_deploy.exporters.families.registry import FAMILIES, ExportOptions
    from mlip_deploy.exporters.settings import quiet

    contract = Artifact(framework.artifact).contract
    family = contract.model.family
    if family not in FAMILIES:
        raise MLIPError(
            f"--against original: '{framework.artifact}' is of the family '{family}', which no framework evaluates. "
            f"Known: {', '.join(FAMILIES)}"
        )
    inputs = {entry.name: entry.value for entry in contract.inputs}
    options = ExportOptions(
        modal=inputs.get("modal"),
        head=inputs.get("head"),
        member=int(inputs["member"]) if "member" in inputs else None,
        fuse=False,
        trust_checkpoint=framework.trust_checkpoint,
        fix=inputs,
    )
    original = FAMILIES[family].adapt(framework.source, options).original
    if device == "cpu" and framework.accelerator is None:
        return original.float32 if contract.dtype == "float32" else original.float64
    if original.calculator is None:
        raise MLIPError(
            f"--against original: of {family} models only the reference on the CPU can take part, found --device "
            f"{device}. Compare with an artifact: mlip export ... --no-fuse keeps the framework's own layers"
        )
    if framework.accelerator and framework.accelerator not in original.accelerators:
        known = ", ".join(original.accelerators) or "none"
        raise MLIPError(f"--against original+{framework.accelerator}: accelerators of {family} are: {known}")
    with quiet():
        calculator = original.calculator(contract.dtype, device, framework.accelerator)

    def evaluate(atoms: Atoms) -> None:
        with quiet():
            calculator.calculate(atoms, ["energy", "forces", "stress"], all_changes)

    return evaluate


def torch_device(device: str) -> str:
    """What "auto" means, for those who do not know it."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device

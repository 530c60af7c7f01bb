"""Checkpoint files of PET, as metatrain writes them: in each of its format versions, alone or inside an LLPR model.

They are pickles, but of tensors, two classes of metatrain's that only hold values, and metatensor's compiled classes:
they load without running code of theirs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from metatomic.torch import unit_conversion_factor
from metatrain.pet import PET
from metatrain.utils.data import DatasetInfo, TargetInfo
from metatrain.utils.io import model_from_checkpoint
from torch import Tensor

from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.checkpoints import load_checkpoint
from mlip_deploy.exporters.settings import quiet


def build_model(path: Path, trust: bool, dtype: torch.dtype) -> PET:
    """metatrain's own model with the best weights of a checkpoint, in `dtype`.

    Raises:
        MLIPError: for a file that metatrain does not read as a PET, or with a term that a file for engines cannot have.
    """
    with torch.serialization.safe_globals([DatasetInfo, TargetInfo, torch.ScriptObject]):
        checkpoint = load_checkpoint(path, trust)
    if isinstance(checkpoint, dict) and checkpoint.get("architecture_name") == "llpr":  # adds uncertainties to a PET
        checkpoint = checkpoint.get("wrapped_model_checkpoint")
    architecture = checkpoint.get("architecture_name") if isinstance(checkpoint, dict) else None
    if not isinstance(checkpoint, dict) or architecture != "pet":
        what = "has no 'architecture_name'" if architecture is None else f"is of the architecture '{architecture}'"
        raise MLIPError(f"'{path}' is no checkpoint of PET: it {what}. Give a checkpoint that metatrain wrote for PET")
    try:
        _refuse(path, checkpoint["model_data"]["model_hypers"], checkpoint["model_data"]["dataset_info"])
        with quiet():
            model: PET = model_from_checkpoint(checkpoint, context="export")
    except MLIPError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise MLIPError(f"'{path}' could not be read as a PET checkpoint ({reason})") from error
    model.to(dtype).eval().requires_grad_(False)
    return model


def _refuse(path: Path, hypers: dict[str, Any], dataset: DatasetInfo) -> None:
    unserved = {
        "long-range interactions (long_range)": (hypers.get("long_range") or {}).get("enable"),
        "charge and spin of the system (system_conditioning)": hypers.get("system_conditioning"),
        "a ZBL repulsion (zbl)": hypers.get("zbl"),
    }
    found = [name for name, present in unserved.items() if present]
    if found:
        raise MLIPError(f"'{path}': this PET has {', '.join(found)}, which the adapter does not know. Use one without")
    unit = dataset.length_unit
    if unit and unit_conversion_factor(unit, "angstrom") != 1.0:
        raise MLIPError(f"'{path}': its lengths are in {unit}, expected angstrom")


def energies_of(model: PET) -> list[str]:
    """Names of a model's targets that are energies in eV. Others, as forces that are no gradient, are left out."""
    return [
        name
        for name, target in model.dataset_info.targets.items()
        if target.quantity == "energy" and target.is_scalar and target.unit == "eV"
        if len(target.layout.block().properties) == 1
    ]


def scales_and_offsets(model: PET, target: str, numbers: list[int]) -> tuple[Tensor, Tensor]:
    """Of each element, float64: the factor of the network's energy, and what is added to it, eV."""
    scaler, composition = model.scaler.model, model.additive_models[0].model
    elements = torch.tensor(numbers)
    scales = scaler.scales[target].block().values.double()[:, 0]
    if len(scales) > 1:
        scales = scales[scaler.type_to_index[elements]]
    offsets = composition.weights[target].block().values.double()[:, 0]
    return scales.expand(len(numbers)).clone(), offsets[composition.type_to_index[elements]].clone()

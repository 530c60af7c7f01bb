"""Inference checkpoints of fairchem: settings of the model, weights, and tasks with their normaliser and references.

A file is a pickle of `MLIPInferenceCheckpoint`, with plain dictionaries in it, or OmegaConf's. It is read without
running code of its own, and what its tasks describe is looked at instead of being instantiated.
"""

from __future__ import annotations

import collections
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.checkpoints import load_checkpoint

BACKBONES = ("escnmd_backbone", "escnmd_moe_backbone", "escn_md.eSCNMDBackbone", "escn_moe.eSCNMDMoeBackbone")
"""ends of the names that a backbone of eSEN or UMA has in a file"""
MODEL_SETTINGS = ("backbone", "heads", "otf_graph", "pass_through_head_outputs", "supports_single_atoms", "model_id")
"""of HydraModel; others are of its training"""
REFERENCE_TYPES = {"torch.DoubleTensor": torch.float64, "torch.FloatTensor": torch.float32}
LEGACY_UMA = "UMA-1.1"


class Pickled:
    """In place of `MLIPInferenceCheckpoint`: has its attributes."""


@dataclass(frozen=True)
class EnergyTask:
    """What makes an energy in eV of a model's output for a dataset: rmsd * output + the sum of references."""

    key: str
    """name of the task, and of the model's output"""
    rmsd: float
    references: Tensor | None
    """float64 [n] eV by atomic number"""


@dataclass(frozen=True)
class Checkpoint:
    path: Path
    config: dict[str, Any]
    """of MODEL_SETTINGS, those that the file has"""
    weights: dict[str, Tensor]
    """averages over the training, which fairchem's calculator uses too"""
    tasks: dict[str, EnergyTask]
    """by dataset"""


def read_checkpoint(path: Path, trust: bool) -> Checkpoint:
    """Settings, weights and energy tasks of an inference checkpoint.

    Args:
        trust: run code that the file carries, where it does not load without.

    Raises:
        MLIPError: for a file that is no inference checkpoint of fairchem, of an architecture that is neither eSEN nor
            UMA, or with tasks whose energies are not a multiple of an output plus references.
    """
    with torch.serialization.safe_globals(_harmless()):
        loaded = load_checkpoint(path, trust)
    parts: list[Any] = [getattr(loaded, name, None) for name in ("model_config", "ema_state_dict", "tasks_config")]
    if any(part is None for part in parts):
        raise MLIPError(
            f"'{path}' holds a {type(loaded).__name__}, expected an inference checkpoint of fairchem-core 2 "
            "(MLIPInferenceCheckpoint). Checkpoints of its first version (esen_30m_oam.pt) are not read"
        )
    config, weights, tasks = _plain(parts[0]), dict(parts[1]), _plain(parts[2])
    backbone = config.get("backbone") or {}
    architecture = str(backbone.get("model"))
    if not architecture.endswith(BACKBONES):
        raise MLIPError(f"'{path}' has a backbone of kind {architecture}, expected one of eSEN or UMA")
    _name_generation(path, config)
    weights.pop("n_averaged", None)
    return Checkpoint(
        path=path,
        config={name: config[name] for name in MODEL_SETTINGS if name in config},
        weights={name.removeprefix("module."): value for name, value in weights.items()},
        tasks=_energy_tasks(path, list(tasks.values()) if isinstance(tasks, dict) else tasks),
    )


def _harmless() -> list[Any]:
    """What a pickled checkpoint may name beside tensors: itself, and containers of OmegaConf."""
    from omegaconf import DictConfig, ListConfig, base, nodes

    of_omegaconf = [DictConfig, ListConfig, base.ContainerMetadata, base.Metadata]
    of_omegaconf += [nodes.AnyNode, nodes.BooleanNode, nodes.FloatNode, nodes.IntegerNode, nodes.StringNode]
    return [
        (Pickled, "fairchem.core.units.mlip_unit.api.inference.MLIPInferenceCheckpoint"),
        *of_omegaconf,
        typing.Any,
        collections.defaultdict,
        *[dict, list, int, str, float, bool],
    ]


def _plain(config: Any) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config


def _name_generation(path: Path, config: dict[str, Any]) -> None:
    """As fairchem does: UMA 1.1 has a version of its backbone in place of a name, UMA 1.0 neither."""
    backbone = config["backbone"]
    if config.get("model_id") or not backbone.get("num_experts"):
        return
    if str(backbone.get("model_version")) != "1.1":
        raise MLIPError(f"'{path}' is a UMA without a model_id, as UMA 1.0, which fairchem itself no longer reads")
    config["model_id"] = LEGACY_UMA


def _energy_tasks(path: Path, tasks: list[dict[str, Any]]) -> dict[str, EnergyTask]:
    found = {}
    for task in tasks:
        if task["property"] != "energy":
            continue
        key = str(task["name"])
        normalizer = task["normalizer"]
        mean, rmsd = float(normalizer.get("mean", 0.0)), float(normalizer.get("rmsd", 1.0))
        if not str(normalizer.get("_target_", "")).endswith(".Normalizer"):
            raise MLIPError(f"'{path}': the task {key} has a normaliser of an unknown kind: {normalizer}")
        if mean != 0.0:
            raise MLIPError(
                f"'{path}': the task {key} adds {mean:g} eV to every system, however large. Only a mean of 0 is known"
            )
        references = _references(path, key, task.get("element_references"))
        found.update({str(dataset): EnergyTask(key, rmsd, references) for dataset in task["datasets"]})
    if not found:
        raise MLIPError(f"'{path}' has no task with an energy")
    return found


def _references(path: Path, key: str, config: Any) -> Tensor | None:
    if config is None:
        return None
    values: Any = config.get("element_references") if isinstance(config, dict) else None
    dtype: torch.dtype | None = torch.float64
    if isinstance(values, dict):
        dtype, values = REFERENCE_TYPES.get(values.get("_target_", "")), values.get("_args_", [None])[0]
    if dtype is None or not isinstance(values, (list, Tensor)):
        raise MLIPError(f"'{path}': the task {key} has element references of an unknown kind: {str(config)[:200]}")
    return torch.as_tensor(values, dtype=dtype).to(torch.float64)

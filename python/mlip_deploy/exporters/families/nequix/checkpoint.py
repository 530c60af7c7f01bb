"""Checkpoint files of Nequix: a line of JSON, then the weights.

`*.nqx` is what Equinox writes: one `.npy` record for each array of the model, in the order of JAX's tree, which is
alphabetical in the fields of a module that has no order of its own. `*.pt` is what nequix's PyTorch version writes: a
state dictionary. Neither needs code to be read, nor JAX.
"""

from __future__ import annotations

import io
import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlip_deploy.errors import MLIPError

SETTINGS = (
    "atomic_numbers",
    "atom_energies",
    "cutoff",
    "hidden_irreps",
    "lmax",
    "n_layers",
    "radial_basis_size",
    "radial_mlp_size",
    "radial_mlp_layers",
    "radial_polynomial_p",
    "mlp_init_scale",
    "index_weights",
    "layer_norm",
    "shift",
    "scale",
    "avg_n_neighbors",
)


@dataclass(frozen=True)
class Checkpoint:
    """A model's settings and its weights."""

    settings: dict[str, Any]
    """of SETTINGS, all"""
    records: list[Tensor] | dict[str, Tensor]
    """the arrays in JAX's order, or by the names that the model in PyTorch has"""


def read_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint's settings and weights, in the type that the file has.

    Raises:
        MLIPError: for a file that is no checkpoint of Nequix, is damaged, or lacks a setting.
    """
    with path.open("rb") as file:
        try:
            settings = json.loads(file.readline(10_000_000).decode())
        except ValueError as error:
            raise MLIPError(f"'{path}' is no Nequix checkpoint: its first line is no JSON object") from error
        absent = [name for name in SETTINGS if name not in settings] if isinstance(settings, dict) else list(SETTINGS)
        if absent:
            raise MLIPError(f"'{path}' is no Nequix checkpoint: its first line has no {', '.join(absent)}")
        weights = file.read()
    try:
        records = _torch_state(weights) if weights.startswith(b"PK") else _npy_records(weights)
    except (ValueError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise MLIPError(f"'{path}': the weights behind the first line could not be read ({error})") from error
    return Checkpoint({name: settings[name] for name in SETTINGS}, records)


def _torch_state(weights: bytes) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(io.BytesIO(weights), map_location="cpu", weights_only=True)
    return state


def _npy_records(weights: bytes) -> list[Tensor]:
    """The records of some dimension. Settings that nequix wrote as scalars behind them are no weights."""
    file = io.BytesIO(weights)
    arrays: list[Tensor] = []
    while weights[file.tell() :].strip():
        array = np.load(file, allow_pickle=False)
        if array.ndim > 0:
            arrays.append(torch.from_numpy(array.copy()))
    return arrays


def load_weights(model: Any, checkpoint: Checkpoint, path: Path) -> None:
    """Put a checkpoint's weights into nequix's model in PyTorch.

    Args:
        model: `nequix.torch_impl.model.NequixTorch` of the checkpoint's settings.
        path: for messages.

    Raises:
        MLIPError: when the weights do not fit the settings.
    """
    if isinstance(checkpoint.records, dict):
        state = {name: value for name, value in checkpoint.records.items() if ".tp." not in name}
        # The constants of the tensor products are in the model already; files for nequix's GPU kernel lack them.
        try:
            missing, unexpected = model.load_state_dict(state, strict=False)
        except RuntimeError as error:
            raise MLIPError(f"'{path}': its weights do not fit its settings ({error})") from error
        wrong = [name for name in [*missing, *unexpected] if name in dict(model.named_parameters()) or name in state]
        if wrong:
            raise MLIPError(f"'{path}': its weights do not fit its settings (missing or unknown: {', '.join(wrong)})")
        return
    records = iter(checkpoint.records)
    targets = _in_order_of_jax(model)
    n_records = sum(len(pieces) for _, pieces in targets)
    if n_records != len(checkpoint.records):
        raise MLIPError(f"'{path}' has {len(checkpoint.records)} arrays of weights, its settings ask for {n_records}")
    with torch.no_grad():
        for parameter, pieces in targets:
            found = [next(records) for _ in pieces]
            for piece, record in zip(pieces, found, strict=True):
                if tuple(record.shape) != piece:
                    raise MLIPError(
                        f"'{path}': an array of weights is {tuple(record.shape)}, its settings ask for {piece}"
                    )
            parameter.copy_(torch.cat([record.reshape(-1) for record in found]).reshape(parameter.shape))


def _in_order_of_jax(model: Any) -> list[tuple[Tensor, list[tuple[int, ...]]]]:
    """(parameter, shapes of the records that it is made of), in the order of the file."""

    def one(parameter: Tensor) -> tuple[Tensor, list[tuple[int, ...]]]:
        return parameter, [tuple(parameter.shape)]

    def linear(module: Any) -> tuple[Tensor, list[tuple[int, ...]]]:
        return module.weight, [tuple(instruction.path_shape) for instruction in module.instructions]

    order = [one(model.atom_energies)]
    for layer in model.layers:
        order += [one(network.weights) for network in layer.radial_mlp.layers]
        order += [linear(module) for module in (layer.linear_1, layer.linear_2, layer.skip)]
        order += [one(weight) for weight in layer.layer_norm.affine_weight] if layer.layer_norm is not None else []
    return [*order, linear(model.readout)]

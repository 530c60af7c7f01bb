"""Small models of real families, so that tests run the whole path in a second instead of a minute."""

from pathlib import Path
from typing import Any

import torch

ELEMENTS = ("H", "C", "O", "Na", "Si", "Cl")


def tiny_sevennet_checkpoint(path: Path, layers: int = 3, seed: int = 0, parity: bool = False, **changes: Any) -> Path:
    """A SevenNet with 7net-0's architecture, few channels, random weights, six elements and a 4 Å cutoff.

    Args:
        changes: of the configuration.
    """
    from ase.data import atomic_numbers
    from sevenn.model_build import build_E3_equivariant_model
    from sevenn.util import load_checkpoint

    config = load_checkpoint("7net-0").config
    config.update(
        {
            "version": "0.13.0",
            "_type_map": {atomic_numbers[symbol]: index for index, symbol in enumerate(ELEMENTS)},
            "_number_of_species": len(ELEMENTS),
            "chemical_species": list(ELEMENTS),
            "channel": 8,
            "num_convolution_layer": layers,
            "is_parity": parity,
            "irreps_manual": ["8x0e", *[f"8x0e+4x1{'o' if parity else 'e'}+2x2e"] * (layers - 1), "8x0e"],
            "weight_nn_hidden_neurons": [8, 8],
            "cutoff": 4.0,
            "cutoff_function": {"cutoff_function_name": "XPLOR", "cutoff_on": 3.2},
            "conv_denominator": [4.0] * layers,
            "shift": [-1.0 * index for index in range(len(ELEMENTS))],
            # large enough that forces are of the order of 1 eV/Å
            "scale": [15.0] * len(ELEMENTS),
        }
        | changes
    )
    torch.manual_seed(seed)
    model = build_E3_equivariant_model(config)
    keys = ("optimizer_state_dict", "scheduler_state_dict")
    torch.save(
        {
            "config": config,
            "model_state_dict": model.state_dict(),
            "epoch": 0,
            "time": "",
            "hash": "",
            **{k: {} for k in keys},
        },
        path,
    )
    return path


def tiny_chgnet_checkpoint(path: Path, seed: int = 0) -> Path:
    """A CHGNet of two layers with few channels and random weights, stored as CHGNet's trainer does."""
    from chgnet.model.model import CHGNet

    torch.manual_seed(seed)
    widths = {f"{kind}_fea_dim": 16 for kind in ("atom", "bond", "angle")}
    hidden = {"atom_conv_hidden_dim": 16, "bond_conv_hidden_dim": 16, "mlp_hidden_dims": (16, 16)}
    torch.save({"model": CHGNet(**widths, **hidden, n_conv=2).as_dict()}, path)
    return path

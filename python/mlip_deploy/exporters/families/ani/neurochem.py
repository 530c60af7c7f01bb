"""ANI models in the files of NeuroChem, as the repository ani-model-zoo publishes them.

`NAME.info` has four lines: constants of the symmetry functions, self energies, folder and prefix of the members, and
how many there are. Each member's `networks` folder has for each element a compressed text `ANN-X.nnf` and the numbers
of each layer. TorchANI evaluates that text as Python; here it is read as text.
"""

from __future__ import annotations

import bz2
import re
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlip_deploy.errors import MLIPError

CELU, LINEAR = 9, 6
"""NeuroChem's numbers of activations"""


ENTRY = re.compile(r"^(\w+)=(?:FILE:)?([\w.+-]+)(?:\[\d+\])?;$", re.MULTILINE)
"""of a layer: a number, or a file and how many numbers it has"""


@dataclass(frozen=True)
class NeuroChemFiles:
    """The files of a model."""

    constants: Path
    self_energies: Path
    members: list[Path]
    """folder of each"""

    def all(self) -> list[Path]:
        """Every file, in a fixed order."""
        return [self.constants, self.self_energies, *(path for one in self.members for path in sorted(one.iterdir()))]


def find_files(info: Path) -> NeuroChemFiles:
    """The files that an info file names, beside it.

    Raises:
        MLIPError: for an info file of another form, or a file that is absent.
    """
    lines = info.read_text(errors="replace").split("\n")[:4]
    if len(lines) < 4 or not lines[3].strip().isdecimal():
        raise MLIPError(
            f"'{info}' is no info file of NeuroChem. Expected four lines: constants (*.params), self energies (*.dat), "
            "folder and prefix of the members, and how many there are"
        )
    constants, self_energies, prefix = (info.parent / line.strip() for line in lines[:3])
    members = [prefix.parent / f"{prefix.name}{k}" / "networks" for k in range(int(lines[3]))]
    if not members:
        raise MLIPError(f"'{info}' says that the model has no members")
    for path in (constants, self_energies):
        if not path.is_file():
            raise MLIPError(f"'{info}' names '{path}', which is not there. Copy the folder whole")
    for path in members:
        if not path.is_dir():
            raise MLIPError(f"'{info}' names {len(members)} members, but '{path}' is not there. Copy the folder whole")
    return NeuroChemFiles(constants, self_energies, members)


def build_model(files: NeuroChemFiles) -> Any:
    """`torchani.arch.ANI` with the constants and weights of the files, in float32.

    Raises:
        MLIPError: for a damaged file, or one that does not fit the others.
    """
    from torchani.arch import ANI
    from torchani.neurochem import load_aev_computer_and_symbols, load_sae
    from torchani.nn import ANINetworks, Ensemble

    try:
        computer, symbols = load_aev_computer_and_symbols(files.constants)
    except Exception as error:
        raise MLIPError(f"'{files.constants}' has no constants of symmetry functions ({_named(error)})") from error
    try:
        self_energies = load_sae(files.self_energies)
    except Exception as error:
        raise MLIPError(f"'{files.self_energies}' has no self energies ({_named(error)})") from error
    if tuple(self_energies.symbols) != symbols:
        raise MLIPError(
            f"'{files.self_energies}' is of {' '.join(self_energies.symbols)}, '{files.constants}' of "
            f"{' '.join(symbols)}"
        )
    members = [
        ANINetworks(OrderedDict((symbol, _network(folder, symbol, computer.out_dim)) for symbol in symbols))
        for folder in files.members
    ]
    return ANI(symbols, computer, members[0] if len(members) == 1 else Ensemble(members), self_energies)


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _network(folder: Path, symbol: str, n_features: int) -> Any:
    """An element's perceptron, TorchANI's AtomicNetwork."""
    from torchani.nn import AtomicNetwork

    path = folder / f"ANN-{symbol}.nnf"
    layers = _layers(path)
    widths = [n_features, *(int(layer["nodes"]) for layer in layers)]
    for layer, given in zip(layers, widths, strict=False):
        if int(layer["blocksize"]) != given:
            raise MLIPError(f"'{path}': a layer takes {layer['blocksize']} values, but is given {given}")
    activations = [int(layer["activation"]) for layer in layers]
    if activations != [CELU] * (len(layers) - 1) + [LINEAR] or widths[-1] != 1:
        raise MLIPError(
            f"'{path}': activations {activations} and {widths[-1]} outputs; known are CELU ({CELU}), a linear last "
            f"layer ({LINEAR}) and one output"
        )
    network = AtomicNetwork(widths, activation="celu", bias=True)
    for layer, linear in zip(layers, [*network.layers, network.final_layer], strict=True):
        for parameter, file in ((linear.weight, layer["weights"]), (linear.bias, layer["biases"])):
            parameter.data = torch.from_numpy(_numbers(folder / file, tuple(parameter.shape)))
    return network


def _layers(path: Path) -> list[dict[str, str]]:
    """What a `*.nnf` says of each layer."""
    if not path.is_file():
        raise MLIPError(f"'{path}' is not there. Copy the folder whole")
    try:
        _, _, compressed = path.read_bytes().partition(b"=\n")
        text = bz2.decompress(compressed).decode("ascii")
    except (OSError, ValueError) as error:
        raise MLIPError(f"'{path}' is no network of NeuroChem ({_named(error)})") from error
    layers = [dict(ENTRY.findall(block)) for block in text.split("layer [")[1:]]
    counts, files = ("nodes", "blocksize", "activation"), ("weights", "biases")
    if not layers or not all(
        all(layer.get(name, "").isdecimal() for name in counts) and all(name in layer for name in files)
        for layer in layers
    ):
        raise MLIPError(f"'{path}' is no network of NeuroChem: expected layers with {', '.join((*counts, *files))}")
    return layers


def _numbers(path: Path, shape: tuple[int, ...]) -> Any:
    """float32 numbers of a layer."""
    if not path.is_file():
        raise MLIPError(f"'{path}' is not there. Copy the folder whole")
    data = path.read_bytes()
    expected = int(np.prod(shape))
    if len(data) != 4 * expected:
        raise MLIPError(f"'{path}' has {len(data)} bytes, expected {expected} numbers of 4 bytes. Copy it again")
    return np.frombuffer(data, "<f4").astype(np.float32).reshape(shape)

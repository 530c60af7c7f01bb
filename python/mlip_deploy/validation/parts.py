"""A file's own model on a crystal of several hundred atoms, and on parts of it with ghosts, in this process."""

from __future__ import annotations

import torch
from ase import Atoms
from torch import Tensor

from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.artifact.tolerances import tolerance
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.interface import TORCH_DTYPE
from mlip_deploy.exporters.parts import cut, energies_of_parts, graph
from mlip_deploy.operators import load_operators
from mlip_deploy.validation.case import Check, judged, unmeasured

TWICE = "twice the fidelity bound: each of the two results is that close to the model"


def parts_with_ghosts(artifact: Artifact, atoms: Atoms) -> Check:
    """The largest difference of an atomic energy in parts with ghosts and in the whole, eV.

    Args:
        atoms: with the settings of the contract in `info`.
    """
    contract = artifact.contract
    quantity = "largest difference of an atomic energy, in parts with ghosts and in the whole"
    if contract.backend != "torchscript":
        reason = f"the back end is {contract.backend}: see fidelity on several ranks, and extensivity in lammps"
        return unmeasured(quantity, "not-applicable", reason, unit="eV")
    quantity += f" ({len(atoms)} atoms)"
    load_operators()
    model = torch.jit.load(str(artifact.path))  # type: ignore[no-untyped-call]
    values = [setting.number(atoms.info[setting.name]) for setting in contract.settings]
    others = {"settings": torch.tensor(values, dtype=TORCH_DTYPE[contract.dtype])} if values else {}
    if contract.positions:
        others["cell"] = torch.tensor(atoms.cell.array)

    def energies(types: Tensor, n_owned: int, edges: Tensor, vectors: Tensor, owned: Tensor) -> Tensor:
        of_owned = {"positions": torch.tensor(atoms.positions)[owned]} if contract.positions else {}
        found: Tensor = model(types, n_owned, edges, vectors, **of_owned, **others)[0]
        return found

    try:
        whole, parts = energies_of_parts(
            energies,
            *graph(atoms, contract.elements, contract.cutoff, TORCH_DTYPE[contract.dtype]),
            cut(atoms),
            contract.parallel,
            contract.message_passing_layers,
        )
    except (MLIPError, RuntimeError) as error:  # torch's, of a model that cannot take the graph
        return unmeasured(quantity, "fail", str(error), unit="eV")
    return judged(
        quantity,
        float((parts - whole).abs().max()),
        2 * tolerance(contract.dtype, artifact.fixtures()).atomic_energies,
        "eV",
        TWICE,
        "sums, means, maxima or counts of all atoms, or ghosts that are forgotten",
    )

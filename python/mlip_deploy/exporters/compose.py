"""`mlip_deploy.compose`: several artifacts become one, whose energies are their mean or their difference.

The members are put together as they are, so their frameworks need not be installed. The reference frames are put
together from those of the members, which the original frameworks computed.
"""

import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from mlip_deploy.artifact.contract import Contract, EnergyFrame, ModelIdentity, Output, Parallel
from mlip_deploy.artifact.fixtures import Fixtures, Noise, Structure
from mlip_deploy.artifact.reader import SUFFIX, Artifact
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.interface import ServedModel
from mlip_deploy.exporters.settings import quiet, torchs_own_functions
from mlip_deploy.exporters.write import write_model
from mlip_deploy.files import require_file
from mlip_deploy.progress import Progress, silent
from mlip_deploy.result import Array

Composition = Literal["mean", "committee", "difference"]
SPREAD = Output(name="energy_std", unit="eV", scope="atom")
"""of a committee: standard deviation of the members' energies of an atom"""


def compose(
    composition: Composition, members: Sequence[str | Path], output: str | Path, *, progress: Progress = silent
) -> Contract:
    """Write one artifact of several that are of one kind.

    Every engine runs it like any other file, on any number of ranks: in one simulation, with one neighbour list. What
    members compute alike, such as the layers below two heads of one model, is computed once.

    Parameters
    ----------
    composition
        "mean": of the energies, and so of the forces. "committee": the same, with the spread of the members as an
        output `energy_std` of each atom (eV, standard deviation over the members). "difference": the first minus the
        second.
    members
        Artifacts of the back end torchscript, in one type, without settings and positions. Elements are those that all
        of them know. Cutoffs may differ.
    output
        File to write, `*.mlip.pt`.
    progress
        Called with a line of text before each piece of work.

    Returns
    -------
    Contract
        Of the file that was written.

    Raises
    ------
    MLIPError
        For members that are not of one kind, with what differs; a mean of energies in different frames; a file that
        cannot be written.
    """
    output = Path(output)
    if composition not in get_args(Composition):
        raise MLIPError(f"'{composition}' is not one of {', '.join(get_args(Composition))}")
    if not output.name.endswith(SUFFIX):
        raise MLIPError(f"-o {output}: file names end in {SUFFIX} here. Type: -o {output.name.split('.')[0]}{SUFFIX}")
    if composition == "difference" and len(members) != 2:
        raise MLIPError(f"a difference is that of two files, found {len(members)}")
    if len(members) < 2:
        raise MLIPError(f"a {composition} takes two files or more, found {len(members)}")
    require_file(output)
    artifacts = [Artifact(path) for path in members]
    for artifact in artifacts:
        _require_member(artifact)
    _require_one_kind(artifacts, composition)
    weights = [1.0, -1.0] if composition == "difference" else [1.0 / len(artifacts)] * len(artifacts)
    served = _served(composition, artifacts, weights)
    fixtures = _fixtures(served.identity.name, artifacts, weights)
    return write_model(served, fixtures, output, artifacts[0].contract.dtype, progress)


def _require_member(artifact: Artifact) -> None:
    """Raises MLIPError for a file that cannot be a part of another."""
    contract, path = artifact.contract, artifact.path
    if contract.backend != "torchscript":
        raise MLIPError(f"'{path}' is compiled, and cannot be a part of another file. Export it without --backend")
    if contract.settings:
        names = " ".join(f"--fix {setting.name}=..." for setting in contract.settings)
        raise MLIPError(f"'{path}' takes settings, and cannot be a part of another file. Export it with {names}")
    if contract.positions:
        raise MLIPError(f"'{path}' takes positions beside its edges, and cannot be a part of another file")


def _require_one_kind(artifacts: Sequence[Artifact], composition: Composition) -> None:
    """Raises MLIPError with what differs from the first."""
    first = artifacts[0]
    kinds: dict[str, Callable[[Contract], object]] = {
        "computes in": lambda contract: contract.dtype,
        "has ghosts' neighbours (parallel halo)": lambda contract: contract.parallel == "halo",
    }
    if composition != "difference":
        kinds["has energies in the frame"] = lambda contract: contract.energy_frame.describe()
    for other in artifacts[1:]:
        for what, of in kinds.items():
            here, there = of(first.contract), of(other.contract)
            if here != there:
                raise MLIPError(f"'{first.path}' {what}: {here}; '{other.path}': {there}. Compose files of one kind")


def _served(composition: Composition, artifacts: Sequence[Artifact], weights: Sequence[float]) -> ServedModel:
    contracts = [artifact.contract for artifact in artifacts]
    elements = [
        symbol for symbol in contracts[0].elements if all(symbol in contract.elements for contract in contracts)
    ]
    if not elements:
        raise MLIPError(f"{', '.join(str(artifact.path) for artifact in artifacts)} have no element in common")
    first = contracts[0]
    cutoff = max(contract.cutoff for contract in contracts)
    names = [artifact.path.name.removesuffix(SUFFIX) for artifact in artifacts]
    name = " minus ".join(names) if composition == "difference" else f"{composition} of {', '.join(names)}"
    digests = "".join(artifact.content_sha256() for artifact in artifacts)
    parallel: Parallel = next((contract.parallel for contract in contracts if contract.parallel != "local"), "local")
    inversion = all(contract.inversion_symmetric for contract in contracts)
    known = all(contract.inversion_symmetric is not None for contract in contracts)

    def energy_model(_: torch.dtype) -> nn.Module:
        with quiet():
            members = [
                Member(torch.jit.load(str(artifact.path)), weight, elements, contract, cutoff)  # type: ignore[no-untyped-call]
                for artifact, contract, weight in zip(artifacts, contracts, weights, strict=True)
            ]
        composed = CommitteeEnergy(members) if composition == "committee" else ComposedEnergy(members)
        return _merged(composed)

    return ServedModel(
        identity=ModelIdentity(
            family="composed",
            name=name,
            source_sha256=hashlib.sha256(digests.encode()).hexdigest(),
            license="; ".join(dict.fromkeys(contract.model.license for contract in contracts)),
            citation="; ".join(dict.fromkeys(contract.model.citation for contract in contracts)),
        ),
        elements=elements,
        cutoff=cutoff,
        message_passing_layers=max(contract.message_passing_layers for contract in contracts),
        parallel=parallel,
        energy_frame=_difference_of_frames(*contracts) if composition == "difference" else first.energy_frame,
        inputs=[],
        energy_model=energy_model,
        extras=(SPREAD,) if composition == "committee" else (),
        atomic_energies_meaningful=all(contract.atomic_energies_meaningful for contract in contracts),
        inversion_symmetric=inversion if known else None,
    )


def _merged(model: nn.Module) -> nn.Module:
    """What members compute alike, such as the layers that two heads share, is computed once.

    Freezing merges equal operations on equal values. It has to be done before the interface asks for gradients with
    respect to the edge vectors: that writes to them, and nothing that reads them would be merged.
    """
    methods = ["extras"] if hasattr(model, "extras") else []
    buffer = io.BytesIO()  # torch takes a frozen module for a part of another one only when it has been loaded
    with quiet(), torchs_own_functions():
        frozen = torch.jit.freeze(torch.jit.script(model.eval()), preserved_attrs=methods)
        torch.jit.save(frozen, buffer)
        buffer.seek(0)
        merged: nn.Module = torch.jit.load(buffer)  # type: ignore[no-untyped-call]
    return merged


def _difference_of_frames(first: Contract, second: Contract) -> EnergyFrame:
    """What is the same in both is gone."""
    terms = zip(first.energy_frame, second.energy_frame, strict=True)
    return EnergyFrame(**{name: "none" if a == b else f"{a} minus {b}" for (name, a), (_, b) in terms})


class Member(nn.Module):
    """The energies of one member, times its weight, from the nodes and edges of the whole.

    Args:
        model: the loaded file.
        weight: of its energies in the sum.
        elements: of the whole, whose type indices are given.
        contract: of the member.
        cutoff: of the whole, Å.
    """

    types: Tensor

    def __init__(
        self, model: torch.jit.ScriptModule, weight: float, elements: Sequence[str], contract: Contract, cutoff: float
    ):
        super().__init__()
        self.model = model
        self.weight = weight
        self.register_buffer("types", torch.tensor([contract.elements.index(symbol) for symbol in elements]))
        self.cutoff: float = contract.cutoff
        self.sees_all_edges: bool = contract.cutoff == cutoff

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        types = self.types[node_types]
        if not self.sees_all_edges:
            within = (edge_vectors * edge_vectors).sum(dim=1) < self.cutoff * self.cutoff
            edge_index, edge_vectors = edge_index[:, within], edge_vectors[within]
        energies: Tensor = self.model.energies(types, n_owned, edge_index, edge_vectors)
        return self.weight * energies


class ComposedEnergy(nn.Module):
    """The sum of the members."""

    def __init__(self, members: Sequence[Member]):
        super().__init__()
        self.members = nn.ModuleList(members)

    def of_members(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        """[n_members, n_owned]"""
        return torch.stack([member(node_types, n_owned, edge_index, edge_vectors) for member in self.members])

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        return self.of_members(node_types, n_owned, edge_index, edge_vectors).sum(dim=0)


class CommitteeEnergy(ComposedEnergy):
    """The mean of the members, and their spread."""

    @torch.jit.export
    def extras(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        energies = self.of_members(node_types, n_owned, edge_index, edge_vectors) * len(self.members)
        return energies.std(dim=0, correction=0).unsqueeze(1)


def _fixtures(name: str, artifacts: Sequence[Artifact], weights: Sequence[float]) -> Fixtures:
    """Of the structures that all members have."""
    of_members = [artifact.fixtures() for artifact in artifacts]
    structures = []
    for first in of_members[0].structures:
        same = [[one for one in fixtures.structures if _is_same(one, first)] for fixtures in of_members]
        if all(same):
            structures.append(_sum_of([found[0] for found in same], weights))
    if not structures:
        raise MLIPError(
            "the files have no reference structure in common, since they know different elements. Export them all with "
            "the same --elements"
        )
    sizes = [abs(weight) for weight in weights]
    rotated = [(size, of.rotation_error) for size, of in zip(sizes, of_members, strict=True) if of.rotation_error]
    return Fixtures(
        reference=f"{name}: {', '.join(dict.fromkeys(fixtures.reference for fixtures in of_members))}",
        float32_noise=_sum_of_noises([(size, of.float32_noise) for size, of in zip(sizes, of_members, strict=True)]),
        isolated_atom_noise=sum(
            size * fixtures.isolated_atom_noise for size, fixtures in zip(sizes, of_members, strict=True)
        ),
        structures=structures,
        rotation_error=_sum_of_noises(rotated) if rotated else None,
    )


def _sum_of_noises(noises: Sequence[tuple[float, Noise]]) -> Noise:
    """Each with its weight."""
    return Noise(**{field: sum(size * getattr(noise, field) for size, noise in noises) for field in Noise.model_fields})


def _is_same(one: Structure, other: Structure) -> bool:
    return all(getattr(one, field) == getattr(other, field) for field in ("symbols", "positions", "cell", "pbc"))


def _sum_of(found: Sequence[Structure], weights: Sequence[float]) -> Structure:
    """One structure with the weighted sum of the members' results."""

    def total(field: str) -> Array:
        values = [np.array(getattr(structure, field)) for structure in found]
        result: Array = np.tensordot(weights, values, 1)
        return result

    return found[0].model_copy(
        update={
            "energy": float(total("energy")),
            "atomic_energies": total("atomic_energies").tolist(),
            "forces": total("forces").tolist(),
            "stress": None if found[0].stress is None else total("stress").tolist(),
        }
    )

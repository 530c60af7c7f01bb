"""export_module: what it refuses, each time with the line of the user's file, and what it writes."""

import inspect
import re

import numpy as np
import pytest
import torch
from ase.build import bulk
from torch import Tensor, nn
from toy_models import ELEMENTS, LocalEnergy

from mlip_deploy import export_module
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.ase import MLIPCalculator
from mlip_deploy.errors import MLIPError


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("strength", torch.tensor([0.5, 0.7]))


class Good(Base):
    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        pair = self.strength[node_types[edge_index[0]]] * torch.exp(-(edge_vectors * edge_vectors).sum(dim=1))
        return torch.zeros(n_owned, dtype=pair.dtype).index_add(0, edge_index[0], pair)


class Column(Base):
    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        pair = torch.exp(-(edge_vectors * edge_vectors).sum(dim=1, keepdim=True))
        return torch.zeros(n_owned, 1, dtype=pair.dtype).index_add(0, edge_index[0], pair)


class AllNodes(Base):
    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        pair = torch.exp(-(edge_vectors * edge_vectors).sum(dim=1))
        return torch.zeros(len(node_types), dtype=pair.dtype).index_add(0, edge_index[0], pair)


class Total(Base):
    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        return torch.exp(-(edge_vectors * edge_vectors).sum(dim=1)).sum()


class Tuple(Base):
    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor):
        return edge_vectors.sum(), edge_vectors


class Single(Base):
    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        pair = torch.exp(-(edge_vectors * edge_vectors).sum(dim=1)).float()
        return torch.zeros(n_owned).index_add(0, edge_index[0], pair)


class Detached(Base):
    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        pair = torch.exp(-(edge_vectors.detach() * edge_vectors.detach()).sum(dim=1))
        return torch.zeros(n_owned, dtype=pair.dtype).index_add(0, edge_index[0], pair)


class RootAtZero(Base):
    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        zero = (edge_vectors * 0.0).sum(dim=1)
        pair = torch.exp(-(edge_vectors * edge_vectors).sum(dim=1)) + zero.sqrt()
        return torch.zeros(n_owned, dtype=pair.dtype).index_add(0, edge_index[0], pair)


class Overflow(Base):
    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        pair = 1.0 / (0.0 * edge_vectors).sum(dim=1)
        return torch.zeros(n_owned, dtype=pair.dtype).index_add(0, edge_index[0], pair)


class Raises(Base):
    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        weights = torch.ones(7)
        return weights * edge_vectors.sum(dim=1)  # here


class NotScriptable(Base):
    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        pair = torch.exp(-(edge_vectors * edge_vectors).sum(dim=1))
        names = {str(value) for value in [1, 2]}  # here
        return torch.zeros(n_owned, dtype=pair.dtype).index_add(0, edge_index[0], pair) * len(names)


class WritesVectors(Base):
    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        pair = torch.exp(-(edge_vectors * edge_vectors).sum(dim=1))
        edge_vectors.detach().mul_(2.0)
        return torch.zeros(n_owned, dtype=pair.dtype).index_add(0, edge_index[0], pair)


class WritesThroughData(Base):
    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        pair = torch.exp(-(edge_vectors * edge_vectors).sum(dim=1))
        edge_vectors.data[:, 0] = 1.0
        return torch.zeros(n_owned, dtype=pair.dtype).index_add(0, edge_index[0], pair)


class WritesTypes(Base):
    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        node_types += 1
        node_types -= 1  # as it was, but another thread may have read it
        pair = self.strength[node_types[edge_index[0]]] * torch.exp(-(edge_vectors * edge_vectors).sum(dim=1))
        return torch.zeros(n_owned, dtype=pair.dtype).index_add(0, edge_index[0], pair)


class WritesIndex(Base):
    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        pair = torch.exp(-(edge_vectors * edge_vectors).sum(dim=1))
        energies = torch.zeros(n_owned, dtype=pair.dtype).index_add(0, edge_index[0], pair)
        edge_index[1].clamp_(max=0)
        return energies


class WritesBuffer(Base):
    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        self.strength.mul_(1.01)
        pair = self.strength[node_types[edge_index[0]]] * torch.exp(-(edge_vectors * edge_vectors).sum(dim=1))
        return torch.zeros(n_owned, dtype=pair.dtype).index_add(0, edge_index[0], pair)


class Pairs(Base):
    def pairs(self, edge_vectors: Tensor) -> Tensor:
        return torch.exp(-(edge_vectors * edge_vectors).sum(dim=1))

    def sums(self, n_owned: int, edge_index: Tensor, pair: Tensor) -> Tensor:
        return torch.zeros(n_owned, dtype=pair.dtype).index_add(0, edge_index[0], pair)


class LargeDiffers(Pairs):
    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        pair = self.pairs(edge_vectors) * (1.0 + 0.1 * float(n_owned > 50))
        return self.sums(n_owned, edge_index, pair)


class Mean(Pairs):
    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        energies = self.sums(n_owned, edge_index, self.pairs(edge_vectors))
        return energies - 0.1 * energies.mean()


class Maximum(Pairs):
    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        energies = self.sums(n_owned, edge_index, self.pairs(edge_vectors))
        return energies - 0.1 * energies.max()


class SystemSum(Pairs):
    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        pair = self.pairs(edge_vectors)
        return self.sums(n_owned, edge_index, pair) + 1e-3 * pair.sum()


class NoGhosts(Pairs):
    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        pair = self.pairs(edge_vectors) * (edge_index[1] < n_owned).to(edge_vectors.dtype)
        return self.sums(n_owned, edge_index, pair)


class Branch(Pairs):
    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        pair = self.pairs(edge_vectors)
        if n_owned > 1000:  # here
            pair = pair * 1.1
        return self.sums(n_owned, edge_index, pair)


class BranchOnEdges(Pairs):
    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        pair = self.pairs(edge_vectors)
        scale = 1.1 if 2 * edge_index.shape[1] + 1 > 1000000 else 1.0  # here
        return self.sums(n_owned, edge_index, scale * pair)


class BranchInAPart(nn.Module):
    def __init__(self):
        super().__init__()
        self.part = Part()

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        pair = self.part((edge_vectors * edge_vectors).sum(dim=1))
        return torch.zeros(n_owned, dtype=pair.dtype).index_add(0, edge_index[0], pair)


class Part(nn.Module):
    def forward(self, squares: Tensor) -> Tensor:
        if squares.dim() == 1 and len(squares) > 1000000:  # here
            return 1.1 * torch.exp(-squares)
        return torch.exp(-squares)


class Harmless(Pairs):
    """Branches that are none on the system's size: no edges, assertions, widths, the model's own tables."""

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        assert edge_index.size(1) < 1000000000
        if edge_vectors.size(0) == 0:
            return torch.zeros(n_owned, dtype=edge_vectors.dtype)
        pair = self.pairs(edge_vectors)
        if self.strength.size(0) > 1 and edge_vectors.size(1) == 3:
            pair = 2.0 * pair
        return self.sums(n_owned, edge_index, pair)


class Messages(Pairs):
    """Two rounds of messages, `ghost_gather` before each."""

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        x = self.strength[node_types[:n_owned]]
        pair = self.pairs(edge_vectors)
        for _ in range(2):
            everyone = torch.ops.mlip.ghost_gather(x, node_types.size(0))
            x = torch.tanh(x + self.sums(n_owned, edge_index, pair * everyone[edge_index[1]]))
        return x


class OwnMessages(Pairs):
    """Ghosts keep what they started with."""

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        x = self.strength[node_types]
        pair = self.pairs(edge_vectors)
        for _ in range(2):
            x = torch.tanh(x + torch.zeros_like(x).index_add(0, edge_index[0], pair * x[edge_index[1]]))
        return x[:n_owned]


class Impatient(Messages):
    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        x = self.strength[node_types[:n_owned]]
        pair = self.pairs(edge_vectors)
        if node_types.size(0) == n_owned:
            x = torch.ops.mlip.ghost_gather(x, n_owned)
        return self.sums(n_owned, edge_index, pair * self.strength[node_types[edge_index[1]]]) + x


def write(module, path, **options):
    settings = {"elements": ["Na", "Cl"], "cutoff": 4.0, "name": "mine", "dtype": "float64"}
    return export_module(module, path, **{**settings, **options})


def line_of(kind: type) -> int:
    """Of the line with "# here", or of forward."""
    lines, start = inspect.getsourcelines(kind.forward)
    return start + next((k for k, line in enumerate(lines) if "# here" in line), 0)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Column, "returned shape [32, 1] for 'sheared crystal', expected atomic energies [n_owned] = [32]"),
        (AllNodes, "ghost atoms', expected atomic energies [n_owned] = [1]"),
        (Total, "returned shape [] for"),
        (Tuple, "returned tuple, expected a tensor of atomic energies"),
        (Single, "returned torch.float32 for edge vectors of torch.float64. Create tensors with dtype="),
        (Detached, "do not depend on edge_vectors"),
        (RootAtZero, "dE/d(edge_vectors) of 'sheared crystal' is not finite"),
        (Overflow, "an energy of 'sheared crystal' is not finite"),
        (Raises, "forward failed on 'sheared crystal': RuntimeError: The size of tensor a (7)"),
        (NotScriptable, "TorchScript cannot compile this: "),
        (WritesVectors, "writes into its argument edge_vectors, which the next step reads again. Write into a copy: "),
        (WritesThroughData, "writes into its argument edge_vectors"),
        (WritesTypes, "writes into its argument node_types"),
        (WritesIndex, "writes into its argument edge_index"),
        (WritesBuffer, "writes into its own 'strength', which the next step reads again. Write into a copy: strength "),
    ],
)
def test_what_is_refused(kind, message, tmp_path):
    with pytest.raises(MLIPError) as refusal:
        write(kind(), tmp_path / "mine.mlip.pt")
    assert message in str(refusal.value)
    assert str(refusal.value).startswith(f"{__file__}:{line_of(kind)}: ")
    assert not list(tmp_path.iterdir())


PARTS = "atomic energies depend on how atoms are divided among ranks: they change by "
SIZE = "atomic energies depend on the size of the system: they change by "


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (LargeDiffers, SIZE),
        (SystemSum, SIZE),
        (Mean, PARTS),
        (Maximum, PARTS),
        (NoGhosts, PARTS),
        (Branch, "a branch on the number of atoms or edges"),
        (BranchOnEdges, "a branch on the number of atoms or edges"),
    ],
)
def test_what_depends_on_more_than_surroundings_is_refused(kind, message, tmp_path):
    with pytest.raises(MLIPError, match=re.escape(message)) as refusal:
        write(kind(), tmp_path / "mine.mlip.pt")
    assert str(refusal.value).startswith(f"{__file__}:{line_of(kind)}: ")
    assert not list(tmp_path.iterdir())


def test_a_branch_of_a_part_is_named_by_its_own_line(tmp_path):
    with pytest.raises(MLIPError, match="a branch on the number") as refusal:
        write(BranchInAPart(), tmp_path / "mine.mlip.pt")
    assert str(refusal.value).startswith(f"{__file__}:{line_of(Part)}: ")


def test_harmless_branches_are_written(tmp_path):
    assert write(Harmless(), tmp_path / "mine.mlip.pt").parallel == "local"


def test_messages_go_through_ghosts(tmp_path):
    options = {"parallel": "exchange", "message_passing_layers": 2}
    assert write(Messages(), tmp_path / "mine.mlip.pt", **options).operators == {"mlip::ghost_gather": 1}
    with pytest.raises(MLIPError, match=r"they change by .*Call torch.ops.mlip.ghost_gather on features of atoms"):
        write(OwnMessages(), tmp_path / "other.mlip.pt", **options)
    with pytest.raises(MLIPError, match="ghost_gather or sum_over_atoms is not called equally often"):
        write(Impatient(), tmp_path / "other.mlip.pt", **options)
    with pytest.raises(MLIPError, match="Say with message_passing_layers how many cutoffs away an atom is felt"):
        write(OwnMessages(), tmp_path / "other.mlip.pt", parallel="halo", message_passing_layers=1)
    assert write(OwnMessages(), tmp_path / "other.mlip.pt", parallel="halo", message_passing_layers=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "mine.pt"}, "file names end in .mlip.pt here. Type: mine.mlip.pt"),
        ({"message_passing_layers": 2}, "2 message-passing layers cannot be parallel='local'"),
    ],
)
def test_wrong_arguments(options, message, tmp_path):
    path = tmp_path / options.pop("path", "mine.mlip.pt")
    with pytest.raises(MLIPError) as refusal:
        write(Good(), path, **options)
    assert message in str(refusal.value)


class WithFeatures(Good):
    def energies_and_features(
        self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor
    ) -> tuple[Tensor, Tensor]:
        energies = self.forward(node_types, n_owned, edge_index, edge_vectors)
        return energies, torch.stack([energies, energies * energies], dim=1)


class OtherEnergies(WithFeatures):
    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        pair = torch.exp(-(edge_vectors * edge_vectors).sum(dim=1))
        return torch.zeros(n_owned, dtype=pair.dtype).index_add(0, edge_index[0], pair)

    def energies_and_features(
        self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor
    ) -> tuple[Tensor, Tensor]:
        energies = 2.0 * self.forward(node_types, n_owned, edge_index, edge_vectors)
        return energies, energies.unsqueeze(1)


class FlatFeatures(Good):
    def energies_and_features(
        self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor
    ) -> tuple[Tensor, Tensor]:
        energies = self.forward(node_types, n_owned, edge_index, edge_vectors)
        return energies, energies


class FeaturesAlone(Good):
    def energies_and_features(
        self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor
    ) -> Tensor:
        return self.forward(node_types, n_owned, edge_index, edge_vectors)


def test_features_are_written(tmp_path):
    path = tmp_path / "mine.mlip.pt"
    write(WithFeatures(), path)
    assert Artifact(path).contract.features == 2
    atoms = bulk("NaCl", "rocksalt", a=5.4)
    calculator = MLIPCalculator(path)
    found = calculator.potential.compute(
        atoms.positions, calculator.contract.types_of(["Na", "Cl"]), atoms.cell.array, [True] * 3, features=True
    )
    energies = found["energies"]
    np.testing.assert_allclose(found["features"], np.stack([energies, energies**2], axis=1), rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (OtherEnergies, "energies_and_features gives other energies than forward"),
        (
            FlatFeatures,
            r"energies_and_features gives features \[\d+\] of torch.float64, expected \[n_owned, n_features\]",
        ),
        (FeaturesAlone, r"energies_and_features returned a Tensor, expected \(energies, features\)"),
    ],
)
def test_features_that_are_none(kind, message, tmp_path):
    with pytest.raises(MLIPError, match=message):
        write(kind(), tmp_path / "mine.mlip.pt")


def test_what_is_written(tmp_path):
    write(Good(), tmp_path / "mine.mlip.pt", license="MIT")
    contract = Artifact(tmp_path / "mine.mlip.pt").contract
    assert (contract.model.family, contract.model.name, contract.model.license) == ("custom", "mine", "MIT")
    assert (contract.elements, contract.cutoff, contract.parallel) == (["Na", "Cl"], 4.0, "local")
    assert Artifact(tmp_path / "mine.mlip.pt").fixtures().reference.startswith("Good, eager")


def test_the_hash_is_of_parameters_and_code(tmp_path):
    changed = Good()
    changed.strength[0] = 0.6
    hashes = {write(module, tmp_path / "mine.mlip.pt").model.source_sha256 for module in (Good(), Good(), changed)}
    assert len(hashes) == 2


@pytest.mark.parametrize("declared", [None, True, False])
def test_what_is_declared_of_mirror_images_is_in_the_contract(declared, tmp_path):
    path = tmp_path / "toy.mlip.pt"
    export_module(LocalEnergy(3.9), path, elements=ELEMENTS, cutoff=3.9, name="toy", inversion_symmetric=declared)
    assert Artifact(path).contract.inversion_symmetric is declared
    MLIPCalculator(path)  # the C++ core takes the key

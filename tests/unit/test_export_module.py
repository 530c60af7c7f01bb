"""export_module: what it refuses, each time with the line of the user's file, and what it writes."""

import inspect

import pytest
import torch
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
        (AllNodes, "returned shape [2] for 'one owned atom and one ghost', expected atomic energies [n_owned] = [1]"),
        (Total, "returned shape [] for"),
        (Tuple, "returned tuple, expected a tensor of atomic energies"),
        (Single, "returned torch.float32 for edge vectors of torch.float64. Create tensors with dtype="),
        (Detached, "do not depend on edge_vectors"),
        (RootAtZero, "dE/d(edge_vectors) of 'sheared crystal' is not finite"),
        (Overflow, "an energy of 'sheared crystal' is not finite"),
        (Raises, "forward failed on 'sheared crystal': RuntimeError: The size of tensor a (7)"),
        (NotScriptable, "TorchScript cannot compile this: "),
    ],
)
def test_what_is_refused(kind, message, tmp_path):
    with pytest.raises(MLIPError) as refusal:
        write(kind(), tmp_path / "mine.mlip.pt")
    assert message in str(refusal.value)
    assert str(refusal.value).startswith(f"{__file__}:{line_of(kind)}: ")
    assert not list(tmp_path.iterdir())


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

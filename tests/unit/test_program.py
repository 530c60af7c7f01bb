"""Files whose fused operators run without torch's dispatcher and autograd (csrc/model/program.h).

The same file run by TorchScript and autograd is the truth.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Artifacts
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from toy_models import ELEMENTS, fixtures_of, write
from vesin import NeighborList

from mlip_deploy import _core
from mlip_deploy.artifact.fixtures import Fixtures
from mlip_deploy.artifact.tolerances import FLOAT64
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.layers.equivariant import EquivariantLinear, Gate, GateChannel, LinearTerm
from mlip_deploy.operators import load_operators

load_operators()

CUTOFF = 3.5  # Å
CHANNELS = 4
SILU = 1

# torch's and ours, in a step of the fused SevenNet that tests share: it has 3 layers. Fewer are better.
MOST_OPERATORS = 60


class Steps(nn.Module):
    """Two rounds of messages by fused operators, with torch's own before, between and after them."""

    def __init__(self) -> None:
        super().__init__()
        self.cutoff, self.channels = CUTOFF, CHANNELS
        random = torch.Generator().manual_seed(3)
        block = [(1, CHANNELS)]

        def term(biased: bool) -> LinearTerm:
            matrix = torch.randn(CHANNELS, CHANNELS, generator=random, dtype=torch.float64)
            bias = torch.randn(len(ELEMENTS), 1, CHANNELS, generator=random, dtype=torch.float64)
            return LinearTerm(block, block, {(0, 0): matrix}, {0: bias} if biased else {})

        self.first = EquivariantLinear(term(True))
        self.rows = EquivariantLinear(term(False), as_rows=True)
        self.second = EquivariantLinear(term(False), term(False))
        self.gate = Gate([GateChannel((SILU, 0.7), (0, u), None, (0, u)) for u in range(CHANNELS)])

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        types, centres, neighbours = node_types[:n_owned], edge_index[0], edge_index[1]
        distances, harmonics = torch.ops.mlip.edge_harmonics(edge_vectors, 1)
        smooth = self.smooth(distances, edge_vectors)
        zeros = torch.zeros([n_owned, self.channels], dtype=edge_vectors.dtype)
        dipoles = zeros.index_add(0, centres, smooth * harmonics)
        blocks: list[Tensor] = self.gate(self.first([dipoles.unsqueeze(1)], types))
        rows = torch.ops.mlip.ghost_gather(self.rows(blocks, types)[0], self.n_nodes(node_types, n_owned))
        messages = zeros.index_add(0, centres, smooth * rows.index_select(0, neighbours))
        return self.energies([messages.unsqueeze(1)], blocks, types)

    def n_nodes(self, node_types: Tensor, n_owned: int) -> int:
        return node_types.size(0)

    def smooth(self, distances: Tensor, edge_vectors: Tensor) -> Tensor:
        return ((1.0 - (distances / self.cutoff) ** 2) ** 3).unsqueeze(1)

    def energies(self, messages: list[Tensor], blocks: list[Tensor], types: Tensor) -> Tensor:
        result: Tensor = self.gate(self.second(messages + blocks, types))[0].sum(dim=[1, 2])
        return result


class ReadTwice(Steps):
    """One tensor is two inputs of an operator."""

    def energies(self, messages: list[Tensor], blocks: list[Tensor], types: Tensor) -> Tensor:
        result: Tensor = self.gate(self.second(blocks + blocks, types))[0].sum(dim=[1, 2]) + messages[0].sum(dim=[1, 2])
        return result


class ResultUnused(Steps):
    """No energy depends on the first result of `edge_harmonics`."""

    def smooth(self, distances: Tensor, edge_vectors: Tensor) -> Tensor:
        return ((1.0 - (edge_vectors * edge_vectors).sum(1) / self.cutoff**2) ** 3).unsqueeze(1)


class OwnDetach(Steps):
    """A factor of the edge vectors that the model itself keeps out of its forces."""

    def smooth(self, distances: Tensor, edge_vectors: Tensor) -> Tensor:
        constant = edge_vectors.detach()
        return ((1.0 - (distances / self.cutoff) ** 2) ** 3 * (constant * constant).sum(1)).unsqueeze(1)


class Branches(Steps):
    """A condition on what a fused operator gives."""

    def energies(self, messages: list[Tensor], blocks: list[Tensor], types: Tensor) -> Tensor:
        found = self.gate(self.second(messages + blocks, types))[0].sum(dim=[1, 2])
        if found.numel() > 2:
            found = found * messages[0].sum(dim=[1, 2])
        return found


class Appends(Steps):
    """A list that a loop of known length makes."""

    def energies(self, messages: list[Tensor], blocks: list[Tensor], types: Tensor) -> Tensor:
        halves: list[Tensor] = []
        for k in range(2):
            halves.append(0.5 * (messages + blocks)[k])
        found: Tensor = self.gate(self.second(halves, types))[0].sum(dim=[1, 2])
        return found


class Selects(Steps):
    """Edges by their lengths: numbers of edges, which have no gradient, before a fused operator and after it."""

    def energies(self, messages: list[Tensor], blocks: list[Tensor], types: Tensor) -> Tensor:
        chosen = torch.nonzero(messages[0].sum(dim=[1, 2]) > 0.0).squeeze(1)
        zeros = torch.zeros_like(messages[0])
        selected = zeros.index_add(0, chosen, messages[0].index_select(0, chosen))
        found: Tensor = self.gate(self.second([selected, blocks[0]], types))[0].sum(dim=[1, 2])
        return found.index_add(0, chosen, found.index_select(0, chosen))


class TorchsList(Steps):
    """A list that one of torch's operators makes, and that is read before and after a fused operator."""

    def energies(self, messages: list[Tensor], blocks: list[Tensor], types: Tensor) -> Tensor:
        halves = torch.split(messages[0], self.channels // 2, 2)
        before = torch.cat([halves[0], halves[0]], 2)
        found: Tensor = self.gate(self.second([before, blocks[0]], types))[0].sum(dim=[1, 2])
        return found * halves[1].sum(dim=[1, 2])


class Views(Steps):
    """Other shapes of what fused operators give, between two of them and at the end."""

    def __init__(self) -> None:
        super().__init__()
        matrix = torch.randn(CHANNELS, 1, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        self.last = EquivariantLinear(LinearTerm([(1, CHANNELS)], [(1, 1)], {(0, 0): matrix}, {}))

    def energies(self, messages: list[Tensor], blocks: list[Tensor], types: Tensor) -> Tensor:
        scalars = self.gate(self.second(messages + blocks, types))[0].squeeze(1)
        found: Tensor = self.last([scalars.unsqueeze(1)], types)[0].squeeze(2).reshape([-1])
        return found


class Gathers(Steps):
    """Features that are read together with what a gather, which passes them on without ghosts, makes of them."""

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        types = node_types[:n_owned]
        distances, harmonics = torch.ops.mlip.edge_harmonics(edge_vectors, 1)
        zeros = torch.zeros([n_owned, self.channels], dtype=edge_vectors.dtype)
        dipoles = zeros.index_add(0, edge_index[0], self.smooth(distances, edge_vectors) * harmonics)
        x = self.gate(self.first([dipoles.unsqueeze(1)], types))[0]
        once = torch.ops.mlip.ghost_gather(x, self.n_nodes(node_types, n_owned))
        twice = torch.ops.mlip.ghost_gather(x, self.n_nodes(node_types, n_owned))
        y = self.second([once, twice], node_types)[0][:n_owned]
        return self.energies([x], [y], types)


class WrongCount(Steps):
    """It forgets ghosts."""

    def n_nodes(self, node_types: Tensor, n_owned: int) -> int:
        return n_owned


class InPlace(Steps):
    """What is written in place: no list of steps, so that TorchScript runs all of it."""

    def energies(self, messages: list[Tensor], blocks: list[Tensor], types: Tensor) -> Tensor:
        found = self.gate(self.second(messages + blocks, types))[0].sum(dim=[1, 2])
        total = torch.zeros_like(found)
        total.add_(found)
        return total


MODELS = {
    "steps": Steps,
    "one tensor read twice": ReadTwice,
    "a result unused": ResultUnused,
    "its own detach": OwnDetach,
    "branches": Branches,
    "appends": Appends,
    "numbers of what is selected": Selects,
    "a list of torch's": TorchsList,
    "views": Views,
    "gathers": Gathers,
    "written in place": InPlace,
}


@pytest.fixture(scope="module")
def fixtures(tmp_path_factory: pytest.TempPathFactory) -> Fixtures:
    return fixtures_of(tmp_path_factory.mktemp("fixtures"))


@pytest.fixture(scope="module", params=MODELS)
def file(
    request: pytest.FixtureRequest, fixtures: Fixtures, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    path = tmp_path_factory.mktemp("program") / "model.mlip.pt"
    return request.param, write(path, MODELS[request.param](), "exchange", "float64", CUTOFF, fixtures)


def operators_in(potential: _core.Potential, n_atoms: int, **wanted: bool) -> list[str]:
    """torch's and ours that one step calls by torch's dispatcher."""
    positions = 1.5 * np.random.default_rng(0).random((n_atoms, 3))
    arguments = positions, np.arange(n_atoms) % len(ELEMENTS), np.zeros((3, 3)), [False] * 3
    potential.compute(*arguments, **wanted)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        potential.compute(*arguments, **wanted)
    names = [event.name for event in profiled.events()]
    return [name for name in names if name.startswith(("aten::", "mlip::"))]


@pytest.mark.parametrize("n_atoms", [9, 1])
def test_the_same_as_torchscript(file: tuple[str, Path], n_atoms: int) -> None:
    name, path = file
    random = np.random.default_rng(4)
    positions, types = 4.0 * random.random((n_atoms, 3)), random.integers(len(ELEMENTS), size=n_atoms)
    pairs = NeighborList(cutoff=CUTOFF, full_list=True, sorted=True)
    i, j, vectors = pairs.compute(positions, np.zeros((3, 3)), False, "ijD")
    edges = torch.tensor(np.stack([i, j]).astype(np.int64))
    found_by_autograd = torch.jit.load(path)(torch.tensor(types), n_atoms, edges, torch.tensor(vectors))
    energies, gradients = (result.detach() for result in found_by_autograd)
    forces = torch.zeros(n_atoms, 3, dtype=torch.float64).index_add(0, edges[0], gradients)
    forces = forces.index_add(0, edges[1], -gradients)
    potential = _core.Potential(str(path))
    found = potential.compute(positions, types, np.zeros((3, 3)), [False] * 3)
    np.testing.assert_allclose(found["energies"], energies, rtol=0, atol=FLOAT64.atomic_energies)
    np.testing.assert_allclose(found["forces"], forces, rtol=0, atol=FLOAT64.forces)
    assert n_atoms == 1 or np.abs(found["forces"]).max() > 0.1
    alone = potential.compute(positions, types, np.zeros((3, 3)), [False] * 3, forces=False)
    np.testing.assert_allclose(alone["energies"], energies, rtol=0, atol=FLOAT64.atomic_energies)
    by_dispatcher = "mlip::equivariant_linear" in operators_in(potential, 3)
    assert by_dispatcher == (name in ("a list of torch's", "written in place"))


def test_a_wrong_number_of_nodes_is_refused(fixtures: Fixtures, tmp_path: Path) -> None:
    """When the file is loaded: an exchange would write into memory that is not there."""
    path = tmp_path / "wrong.mlip.pt"
    write(path, WrongCount(), "exchange", "float64", CUTOFF, fixtures)
    with pytest.raises(
        MLIPError, match=r"ghost_gather: 1 nodes for 1 owned atoms and 1 ghosts. Pass the number of all"
    ):
        _core.Potential(str(path))


def test_few_operators(artifacts: Artifacts) -> None:
    """Each costs about a microsecond and a half: of a step of few atoms they were the larger part."""
    potential = _core.Potential(str(artifacts.tiny("float32")))
    found = operators_in(potential, 2)
    assert not [name for name in found if name.startswith("mlip::")]
    assert len(found) <= MOST_OPERATORS, found

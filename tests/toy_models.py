"""Models small enough to read, behind the model interface: a local one, and one with messages in two forms."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from mlip_deploy import __version__, export_module
from mlip_deploy.artifact.contract import (
    ANGSTROM_EV,
    ENERGY_AND_FORCES,
    Contract,
    EnergyFrame,
    ModelIdentity,
    Producer,
)
from mlip_deploy.artifact.fixtures import Fixtures
from mlip_deploy.artifact.format import SCHEMA
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.exporters.interface import TORCH_DTYPE, EdgeGradientModel
from mlip_deploy.exporters.targets.torchscript import save

ELEMENTS = ["Na", "Cl", "Si"]
NO_FRAME = EnergyFrame(functional="none", hubbard_u="none", corrections="none", dispersion="none")


class LocalEnergy(nn.Module):
    """E_i from the density and the dipole of i's own neighbours: many-body, and E_i differs from E_j."""

    def __init__(self, cutoff: float):
        super().__init__()
        self.cutoff = cutoff
        self.register_buffer("strength", torch.tensor([1.0, 1.6, 1.2], dtype=torch.float64))
        self.register_buffer("scale", torch.tensor([0.8, 1.9, 1.1], dtype=torch.float64))

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        centres, neighbours = edge_index[0], edge_index[1]
        smooth = (1.0 - (edge_vectors * edge_vectors).sum(1) / self.cutoff**2) ** 3
        weight = self.strength[node_types[neighbours]] * smooth
        zeros = torch.zeros([n_owned, 4], dtype=edge_vectors.dtype)
        moments = zeros.index_add(0, centres, torch.cat([weight[:, None], weight[:, None] * edge_vectors], 1))
        density, dipole = moments[:, 0], moments[:, 1:]
        energies = 0.4 * density**2 - 2.0 * torch.sqrt(density + 0.1) + 0.3 * (dipole * dipole).sum(1)
        return self.scale[node_types[:n_owned]] * energies


class HaloEnergy(nn.Module):
    """Three rounds of messages without exchange points: every node, ghosts too, gets new features in each."""

    LAYERS = 3

    def __init__(self, cutoff: float):
        super().__init__()
        self.cutoff = cutoff
        random = torch.Generator().manual_seed(1)
        self.register_buffer("features", torch.randn(len(ELEMENTS), 4, generator=random, dtype=torch.float64))
        self.register_buffer("mix", torch.randn(self.LAYERS, 4, 4, generator=random, dtype=torch.float64))
        self.register_buffer("readout", 3.0 * torch.randn(4, generator=random, dtype=torch.float64))

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        centres, neighbours = edge_index[0], edge_index[1]
        smooth = (1.0 - (edge_vectors * edge_vectors).sum(1) / self.cutoff**2) ** 3
        x = self.features[node_types]
        for layer in range(self.mix.size(0)):
            messages = smooth[:, None] * (x @ self.mix[layer])[neighbours]
            x = torch.tanh(x + torch.zeros_like(x).index_add(0, centres, messages))
        return x[:n_owned] @ self.readout


class MessageEnergy(HaloEnergy):
    """The same energies with exchange points: owned atoms alone get new features."""

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        centres, neighbours = edge_index[0], edge_index[1]
        smooth = (1.0 - (edge_vectors * edge_vectors).sum(1) / self.cutoff**2) ** 3
        x = self.features[node_types[:n_owned]]
        for layer in range(self.mix.size(0)):
            everyone = torch.ops.mlip.ghost_gather(x @ self.mix[layer], node_types.size(0))
            x = torch.tanh(x + torch.zeros_like(x).index_add(0, centres, smooth[:, None] * everyone[neighbours]))
        return x @ self.readout


MODELS = {"local": LocalEnergy, "halo": HaloEnergy, "exchange": MessageEnergy}


def export(
    path: Path, parallel: str, dtype: str = "float64", cutoff: float = 3.9, backend: str = "torchscript"
) -> Path:
    """An artifact of the model of that kind."""
    local = parallel == "local"
    export_module(
        MODELS[parallel](cutoff),
        path,
        elements=ELEMENTS,
        cutoff=cutoff,
        name=f"toy-{parallel}",
        message_passing_layers=0 if local else HaloEnergy.LAYERS,
        parallel=parallel,
        dtype=dtype,
        energy_frame=NO_FRAME,
        license="MIT",
        citation="A toy. No journal.",
        backend=backend,
    )
    return path


def write(
    path: Path,
    energy: nn.Module,
    parallel: str,
    dtype: str,
    cutoff: float,
    fixtures: Fixtures,
    wrap: Callable[[nn.Module], nn.Module] = EdgeGradientModel,
    inversion_symmetric: bool | None = None,
) -> Path:
    """An artifact of any energy model for these elements, right or wrong, with the fixtures of another."""
    layers = 0 if parallel == "local" else HaloEnergy.LAYERS
    contract = Contract(
        schema=SCHEMA,
        requires=[],
        producer=Producer(package="mlip-deploy", version=__version__, torch=str(torch.__version__)),
        model=ModelIdentity(
            family="toy", name=f"toy-{parallel}", source_sha256="0" * 64, license="MIT", citation="A toy. No journal."
        ),
        backend="torchscript",
        elements=ELEMENTS,
        cutoff=cutoff,
        message_passing_layers=layers,
        interaction_range=cutoff * max(1, layers),
        dtype=dtype,
        units=ANGSTROM_EV,
        parallel=parallel,
        collectives=[],
        inputs=[],
        settings=[],
        outputs=ENERGY_AND_FORCES,
        atomic_energies_meaningful=True,
        energy_frame=NO_FRAME,
        operators={},
        inversion_symmetric=inversion_symmetric,
    )
    model = wrap(energy.to(TORCH_DTYPE[dtype])).eval()
    # unmarked, so that what tests look at sees a wrong model, not the self-test before it
    unmarked = fixtures.model_copy(update={"self_test": None})
    save(torch.jit.freeze(torch.jit.script(model)), path, contract, unmarked)
    return path


def fixtures_of(directory: Path) -> Fixtures:
    """Of LocalEnergy as it is."""
    return Artifact(export(directory / "original.mlip.pt", "local")).fixtures()

"""Adapter for NequIP (S. Batzner et al. 2022) and Allegro (A. Musaelian et al. 2023): `nequip`, `nequip-allegro`.

Both run on mlip's operators by default: see `fused` and `allegro`. Otherwise the models' own modules are used as they
are, except NequIP's interaction blocks, which get their neighbours' features through `mlip::ghost_gather`. Allegro is
strictly local: an atom's energy depends on its own edges.
"""

import copy
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from torch import Tensor, nn

from mlip_deploy.artifact.contract import EnergyFrame, ModelIdentity
from mlip_deploy.artifact.fixtures import Original
from mlip_deploy.artifact.reader import file_sha256
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.checkpoints import load_checkpoint
from mlip_deploy.exporters.families.nequip.allegro import FusedAllegroEnergy
from mlip_deploy.exporters.families.nequip.fused import FusedNequIPEnergy
from mlip_deploy.exporters.families.nequip.graph_data import graph_data
from mlip_deploy.exporters.families.nequip.state import nequip_settings
from mlip_deploy.exporters.families.registry import ExportOptions, keep_elements
from mlip_deploy.exporters.families.sources import downloading
from mlip_deploy.exporters.interface import Adapted
from mlip_deploy.exporters.layers.equivariant import NotFusible, keeps_parity, script
from mlip_deploy.exporters.layers.polynomial_cutoff import polynomial_cutoff
from mlip_deploy.result import VOIGT, Result

CITATIONS = {
    "nequip": (
        "Batzner, S.; Musaelian, A.; Sun, L.; Geiger, M.; Mailoa, J. P.; Kornbluth, M.; Molinari, N.; Smidt, T. E.; "
        "Kozinsky, B. E(3)-equivariant graph neural networks for data-efficient and accurate interatomic potentials. "
        "Nat. Commun. 2022, 13, 2453. doi:10.1038/s41467-022-29939-5"
    ),
    "allegro": (
        "Musaelian, A.; Batzner, S.; Johansson, A.; Sun, L.; Owen, C. J.; Kornbluth, M.; Kozinsky, B. Learning local "
        "equivariant representations for large-scale atomistic dynamics. Nat. Commun. 2023, 14, 579. "
        "doi:10.1038/s41467-023-36329-y"
    ),
}
PACKAGE_SUFFIX = ".nequip.zip"
SITE = "nequip.net:"
"""before the name of a model that nequip downloads: group/model:version"""
PUBLISHED = {name: f"{SITE}mir-group/{name}:0.1" for name in ("NequIP-OAM-L", "NequIP-OAM-XL", "Allegro-OAM-L")}
# As Matbench Discovery has it: trained on OMat24, then on MPtrj and sAlex.
PUBLISHED_FRAME = EnergyFrame(
    functional="PBE (MPtrj, sAlex)", hubbard_u="MP2020 values", corrections="none", dispersion="none"
)
PUBLISHED_LICENSE = "MIT (code), CC-BY-4.0 (weights, by Matbench Discovery)"


def adapt(source: str, options: ExportOptions) -> Adapted:
    """A published or stored NequIP or Allegro model as an Adapted model.

    Args:
        source: a name of PUBLISHED, another model of nequip.net ("nequip.net:group/model:version"), a training
            checkpoint (*.ckpt) or a package (*.nequip.zip); packages, which those of nequip.net are, carry code.
        options: `fuse` False keeps NequIP's own layers; `elements`; `trust_checkpoint`, which a package always needs.

    Raises:
        MLIPError: for a file that is not one of these or not trusted, a model that cannot be downloaded, elements that
            the model lacks, type names that are no elements, a layer that the adapter does not know, or one without a
            fused form while `options.fuse` is true.
    """
    address = PUBLISHED.get(source, source)
    if address.startswith(SITE):
        adapted = _adapt_file(_download(source, address, options.trust_checkpoint), options)
        known = address in PUBLISHED.values()
        identity = adapted.identity.model_copy(
            update={
                "name": address.rpartition("/")[2].partition(":")[0],
                "license": PUBLISHED_LICENSE if known else "unknown",
            }
        )
        return replace(adapted, identity=identity, energy_frame=PUBLISHED_FRAME if known else adapted.energy_frame)
    if not Path(source).is_file():
        raise MLIPError(
            f"'{source}': no such file. Expected a checkpoint (*.ckpt) or a package (*{PACKAGE_SUFFIX}), or a name: "
            f"{', '.join(PUBLISHED)}"
        )
    return _adapt_file(Path(source), options)


def _download(source: str, address: str, trust: bool) -> Path:
    """The package that nequip keeps of a model of nequip.net."""
    if not trust:
        raise MLIPError(
            f"'{source}' is downloaded as a NequIP package, which carries the model's Python code: it is to be trusted "
            "like a program. If you trust its authors, add: --trust-checkpoint"
        )
    page = f"https://www.nequip.net/models/{address.removeprefix(SITE)}"
    with downloading(source, f"the package from {page}"), nequip_settings():
        from nequip.model.saved_models.load_utils import _get_model_file_path

        with _get_model_file_path(address) as path:
            return Path(path)


def _adapt_file(path: Path, options: ExportOptions) -> Adapted:
    source = str(path)
    if path.name.endswith(PACKAGE_SUFFIX):
        if not zipfile.is_zipfile(path):
            raise MLIPError(f"'{source}' is not a NequIP package: it is no zip archive")
        if not options.trust_checkpoint:
            raise MLIPError(
                f"'{source}' is a NequIP package: it carries the model's Python code, which runs when it is loaded: "
                "it is to be trusted like a program. If you trust whoever wrote it, add: --trust-checkpoint"
            )
    else:
        load_checkpoint(path, options.trust_checkpoint)
    try:
        with nequip_settings():
            from nequip.model.saved_models.load_utils import load_saved_model

            model = load_saved_model(path)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise MLIPError(f"'{source}' could not be read as a NequIP model ({reason})") from error
    return adapt_model(model, path.name.split(".")[0], file_sha256(path), options)


def adapt_model(model: Any, name: str, sha256: str, options: ExportOptions) -> Adapted:
    """The same for a model in memory (nequip.nn.GraphModel in eager mode)."""
    import nequip
    from ase.data import atomic_numbers

    steps = _steps(model)
    interactions = [step for step in steps.values() if type(step).__name__ == "ConvNetLayer"]
    family = "nequip" if interactions else "allegro"
    residual = [name for name, step in steps.items() if getattr(step, "resnet", False)]
    if residual:
        raise MLIPError(f"{residual[0]} has a residual connection, which the adapter does not know")
    if getattr(steps.get("type_embed"), "do_categorical_graph_field_embed", False):
        wanted = ", ".join(steps["type_embed"].categorical_graph_field_embed_modules)
        raise MLIPError(f"{name} is a model with further inputs ({wanted}), which cannot be exported")
    unknown = [symbol for symbol in model.type_names if symbol not in atomic_numbers]
    if unknown:
        raise MLIPError(f"{name} has atom types that are no elements: {', '.join(unknown)}")
    if not interactions and not any(type(step).__name__ == "Allegro_Module" for step in steps.values()):
        raise MLIPError(f"{name} is neither NequIP nor Allegro. Its modules: {', '.join(steps)}")
    elements = keep_elements(list(model.type_names), options.elements, name)
    types = [list(model.type_names).index(symbol) for symbol in elements]
    return Adapted(
        identity=ModelIdentity(
            family="nequip", name=name, source_sha256=sha256, license="unknown", citation=CITATIONS[family]
        ),
        elements=elements,
        cutoff=float(model.metadata["r_max"]),
        message_passing_layers=len(interactions),
        parallel="exchange" if interactions else "local",
        energy_frame=EnergyFrame.unknown(),
        inputs=[],
        inversion_symmetric=keeps_parity(model),
        energy_model=lambda dtype: _energy_model(model, dtype, types, bool(interactions), options),
        original=Original(
            package=f"nequip {nequip.__version__}",
            float64=_original(model, torch.float64),
            float32=_original(model, torch.float32),
        ),
        script=script,
    )


def _energy_model(
    model: Any, dtype: torch.dtype, types: list[int], interactions: bool, options: ExportOptions
) -> nn.Module:
    converted = _in_type(model, dtype)
    for module in list(converted.modules()):
        for name, child in module.named_children():
            if type(child).__name__ == "PolynomialCutoff":
                setattr(module, name, PolynomialCutoff(child.p))
    if not options.fuse:
        return NequIPEnergy(converted, types)
    try:
        if not interactions:
            return FusedAllegroEnergy(_steps(converted), types)
        in_float64 = _steps(_in_type(converted, torch.float64))
        return FusedNequIPEnergy(_steps(converted), in_float64, types, dtype, options.tabulate(dtype == torch.float32))
    except NotFusible as reason:
        raise MLIPError(f"{reason}. This model has no fused form; export its own layers: add --no-fuse") from reason


def _steps(model: Any) -> dict[str, Any]:
    """The modules of the energy model in the order in which they run, but the sum over atoms."""
    return {name: step for name, step in model.model.func.named_children() if name != "total_energy_sum"}


def _in_type(model: Any, dtype: torch.dtype) -> Any:
    """A copy in `dtype`. NequIP itself keeps edges and energies in float64 whatever its layers have."""
    result = copy.deepcopy(model).to(dtype).eval()
    for module in result.modules():
        for name in ("_output_dtype", "model_dtype", "out_dtype"):
            if isinstance(getattr(module, name, None), torch.dtype):
                setattr(module, name, dtype)
    return result


class PolynomialCutoff(nn.Module):
    """NequIP's own, which adds powers of x one by one, in a form that float32 rounds less."""

    def __init__(self, p: float):
        super().__init__()
        self.p = float(p)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = polynomial_cutoff(x, self.p)
        return result


class NequIPEnergy(nn.Module):
    """NequIP or Allegro behind the model interface: atomic energies of owned atoms from edge vectors.

    Args:
        model: GraphModel in the type to compute in.
        types: the model's type index of each of the artifact's elements.
    """

    # TorchScript then compiles only the branch that is taken.
    __constants__ = ("of_edges",)
    types: Tensor

    def __init__(self, model: Any, types: list[int]):
        super().__init__()
        self.register_buffer("types", torch.tensor(types))
        steps = _steps(model)
        for step in steps.values():
            if type(step).__name__ == "ConvNetLayer":
                step.conv = Interaction(step.conv)
        # The read-out is the first step after the last layer; in Allegro it reads features of edges.
        names = [type(step).__name__ for step in steps.values()]
        last = max(k for k, name in enumerate(names) if name in ("ConvNetLayer", "Allegro_Module"))
        self.before = nn.ModuleList(list(steps.values())[: last + 1])
        self.after = nn.ModuleList(list(steps.values())[last + 1 :])
        self.of_edges = names[last] == "Allegro_Module"
        irreps = list(steps.values())[last].irreps_out["edge_features" if self.of_edges else "node_features"]
        self.n_features: int = irreps[0].mul * irreps[0].ir.dim  # e3nn sorts even scalars first

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        energies: Tensor = self.energies_and_features(node_types, n_owned, edge_index, edge_vectors)[0]
        return energies

    def energies_and_features(
        self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The features are the scalars of the last layer: of the atom, or the sum over its edges."""
        data = graph_data(self.types, node_types, edge_index, edge_vectors)
        # A length, as the other counts are: a number in a tensor would be a constant to a trace.
        data["owned_types"] = node_types[:n_owned]
        for step in self.before:
            data = step(data)
        if self.of_edges:
            of_edges = data["edge_features"][:, : self.n_features]
            features = of_edges.new_zeros([n_owned, self.n_features]).index_add(0, edge_index[0], of_edges)
        else:
            features = data["node_features"][:n_owned, : self.n_features]
        for step in self.after:
            data = step(data)
        return data["atomic_energy"][:n_owned].squeeze(1), features


class Interaction(nn.Module):
    """NequIP's InteractionBlock over owned centres, with neighbours that may be ghosts."""

    __constants__ = ("has_self_connection", "is_first_layer")

    def __init__(self, original: Any):
        super().__init__()
        self.linear_1, self.linear_2 = original.linear_1, original.linear_2
        self.norm = original.avg_num_neighbors_norm
        self.edge_mlp = original.edge_mlp
        self.tensor_product = original.tp_scatter.tp
        self.has_self_connection = original.sc is not None
        self.self_connection = original.sc if self.has_self_connection else nn.Identity()
        self.is_first_layer: bool = original.is_first_layer

    def forward(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        n_owned = data["owned_types"].shape[0]
        n_nodes = data["pos"].shape[0]
        centres, neighbours = data["edge_index"][0], data["edge_index"][1]
        x = data["node_features"]
        connection = x
        if self.has_self_connection:
            connection = self.self_connection(x[:n_owned], data["node_attrs"][:n_owned])
        data["node_features"] = self.linear_1(x)
        data = self.norm(data)
        x = data["node_features"]
        if not self.is_first_layer:  # whose features come from the types, which ghosts have
            x = torch.ops.mlip.ghost_gather(x, n_nodes)
        messages = self.tensor_product(x[neighbours], data["edge_attrs"], self.edge_mlp(data["edge_embedding"]))
        total = torch.zeros([n_owned, messages.shape[1]], dtype=messages.dtype, device=messages.device)
        x = self.linear_2(total.index_add(0, centres, messages))
        data["node_features"] = x + connection if self.has_self_connection else x
        return data


def _original(model: Any, dtype: torch.dtype) -> Callable[[Atoms], Result]:
    """NequIP's own graph, layers and derivatives, all in `dtype`."""
    own: Any = None

    def evaluate(atoms: Atoms) -> Result:
        nonlocal own
        own = own or _in_type(model, dtype)
        plain = Atoms(atoms.get_chemical_symbols(), positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        with nequip_settings():
            from nequip.data import compute_neighborlist_, from_ase

            data = compute_neighborlist_(from_ase(plain), float(own.metadata["r_max"]))
            data["atom_types"] = torch.tensor([own.type_names.index(s) for s in plain.get_chemical_symbols()])
            if not atoms.pbc.all():
                data.pop("pbc", None)
            found = own({k: v.to(dtype) if v.is_floating_point() else v for k, v in data.items()})
        stress = None
        if atoms.pbc.all():
            tensor = found["stress"].detach().numpy().astype(float).reshape(3, 3)
            stress = np.array([tensor[a, b] for a, b in VOIGT])
        energies = found["atomic_energy"].detach().numpy().astype(float).reshape(-1)
        return Result(
            energy=float(energies.sum()),
            atomic_energies=energies,
            forces=found["forces"].detach().numpy().astype(float),
            stress=stress,
        )

    return evaluate

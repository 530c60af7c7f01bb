"""Adapter for PET (package `metatrain`): the models of `upet`, such as PET-MAD and PET-OAM, and checkpoints `*.ckpt`.

The layers are in model.py; the reference is metatrain's own model. Its messages belong to edges, which an engine cannot
exchange atom by atom: the mode is `halo`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from metatomic.torch import ModelOutput, System
from metatrain.pet import PET
from metatrain.utils.neighbor_lists import get_system_with_neighbor_lists

from mlip_deploy.artifact.contract import EnergyFrame, Input, ModelIdentity
from mlip_deploy.artifact.fixtures import Original
from mlip_deploy.artifact.reader import file_sha256
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.families.pet.checkpoint import build_model, energies_of, scales_and_offsets
from mlip_deploy.exporters.families.pet.model import PETEnergy
from mlip_deploy.exporters.families.registry import FAMILIES, ExportOptions, keep_elements
from mlip_deploy.exporters.families.sources import downloading, unknown_source
from mlip_deploy.exporters.interface import TORCH_DTYPE, Adapted
from mlip_deploy.exporters.settings import quiet
from mlip_deploy.result import Result, tensor_to_voigt

REPOSITORY = "lab-cosmo/upet"
"""on the Hugging Face hub, where upet looks for its models"""
LICENSE = "BSD-3-Clause"
UNCONSTRAINED = (
    "Bigi, F.; Pegolo, P.; Mazitov, A.; Ceriotti, M. Pushing the limits of unconstrained machine-learned interatomic "
    "potentials. arXiv:2601.16195 (2026)"
)
PET_MAD = (
    "Mazitov, A.; Bigi, F.; Kellner, M.; Pegolo, P.; Tisi, D.; Fraux, G.; Pozdnyakov, S.; Loche, P.; Ceriotti, M. "
    "PET-MAD as a lightweight universal interatomic potential for advanced materials modeling. Nat. Commun. 2025, 16, "
    "10653. doi:10.1038/s41467-025-65662-7"
)
PET_MAD_1_5 = (
    "Malosso, C.; Bigi, F.; Pegolo, P.; Abbott, J. W.; Loche, P.; Rossi, M.; Goncalves, T. J.; De, S.; Ceriotti, M.; "
    "Mazitov, A. High-quality, high-information datasets for universal atomistic machine learning. arXiv:2603.02089 "
    "(2026)"
)


@dataclass(frozen=True)
class Published:
    """Models of one training, in several sizes."""

    versions: dict[str, tuple[str, ...]]
    """of each size, the newest first"""
    energy_frame: EnergyFrame
    citation: str = UNCONSTRAINED


def _frame(functional: str, hubbard_u: str = "none", dispersion: str = "none") -> EnergyFrame:
    return EnergyFrame(functional=functional, hubbard_u=hubbard_u, corrections="none", dispersion=dispersion)


PUBLISHED = {
    "pet-mad": Published(
        {"xs": ("1.6.0", "1.5.0"), "s": ("1.6.0", "1.5.0"), "m": ("1.6.0",)}, _frame("r2SCAN (MAD-1.5)"), PET_MAD_1_5
    ),
    "pet-oam": Published({"l": ("0.1.0",), "xl": ("1.0.0",)}, _frame("PBE (MPtrj, sAlex)", "MP2020 values")),
    "pet-omat": Published(
        dict.fromkeys(("xs", "s", "m", "l", "xl"), ("1.0.0",)), _frame("PBE (OMat24)", "OMat24 values")
    ),
    "pet-omatpes": Published({"l": ("0.1.0",)}, _frame("r2SCAN (MatPES)")),
    "pet-omad": Published({"xs": ("1.0.0",), "s": ("1.0.0",), "l": ("0.1.0",)}, _frame("PBEsol (MAD)")),
    "pet-spice": Published({"s": ("0.2.0",), "l": ("0.2.0",)}, _frame("ωB97M (SPICE)", dispersion="D3")),
    "pet-omol": Published(dict.fromkeys(("s", "m", "l"), ("1.0.0",)), _frame("ωB97M-V (OMol25)", dispersion="VV10")),
    "pet-mols": Published({"s": ("1.1.0",)}, _frame("PBE0", dispersion="MBD")),
}
"""As upet 0.3.1 lists them, with the functionals that its calculator names."""


def adapt(source: str, options: ExportOptions) -> Adapted:
    """A published or stored PET as an Adapted model.

    Args:
        source: a name of PUBLISHED with a size, with or without a version, or a file.
        options: `fuse` False takes torch's operators alone; `head`, `elements`, `trust_checkpoint`.

    Raises:
        MLIPError: for an unknown source, a file that is no checkpoint of PET, a model with terms that engines cannot
            serve, an energy or elements that it lacks.
    """
    path, name, published = _locate(source)

    def model_in(dtype: torch.dtype) -> PET:
        return build_model(path, options.trust_checkpoint, dtype)

    model = model_in(torch.float64)
    inputs, target = _target(model, source, options.head)
    known = [chemical_symbols[number] for number in model.atomic_types]
    elements = keep_elements(known, options.elements, name)
    numbers = [atomic_numbers[symbol] for symbol in elements]
    scales, offsets = scales_and_offsets(model, target, numbers)
    return Adapted(
        identity=ModelIdentity(
            family="pet",
            name=name,
            source_sha256=file_sha256(path),
            license="unknown" if published is None else LICENSE,
            citation=UNCONSTRAINED if published is None else published.citation,
        ),
        elements=elements,
        cutoff=model.cutoff,
        message_passing_layers=_reach(model),
        parallel="halo",
        energy_frame=EnergyFrame.unknown() if published is None else published.energy_frame,
        inputs=inputs,
        inversion_symmetric=False,
        rotation_symmetric=False,
        energy_model=lambda dtype: PETEnergy(model_in(dtype), target, numbers, scales, offsets, options.fuse),
        original=Original(
            package=f"metatrain {FAMILIES['pet'].version()}",
            float64=_original(model_in, target, torch.float64),
            float32=_original(model_in, target, torch.float32),
            calculator=lambda dtype, device, accelerator: _calculator(model_in(TORCH_DTYPE[dtype]), target, device),
        ),
    )


def _reach(model: PET) -> int:
    """Over how many cutoffs a displacement is felt. metatrain's own interaction range is one cutoff a layer.

    A layer sees one cutoff around its atom. The read-out of `feedforward` takes the last messages of an atom's
    neighbours, which is one more. Adaptive cutoffs of the farthest neighbours depend on theirs, which is another one.
    """
    feedforward, adaptive = model.featurizer_type == "feedforward", model.num_neighbors_adaptive is not None
    return int(model.num_gnn_layers + feedforward + adaptive)


def _locate(source: str) -> tuple[Path, str, Published | None]:
    """(file, name, what is known of it) of a source; downloads a named model to where upet keeps it."""
    path = Path(source)
    if path.is_file():
        return path, path.stem, None
    name, _, version = source.lower().removesuffix(".ckpt").partition("-v")
    training, _, size = name.rpartition("-")
    published = PUBLISHED.get(training)
    versions = () if published is None else published.versions.get(size, ())
    if not versions or (version and version not in versions):
        names = [
            f"{known}-{its_size}-v{its_version}"
            for known, one in PUBLISHED.items()
            for its_size, its_versions in one.versions.items()
            for its_version in its_versions
        ]
        raise unknown_source(source, "a PET model", names, ".ckpt")
    file = f"{name}-v{version or versions[0]}"
    with downloading(source, f"https://huggingface.co/{REPOSITORY}/resolve/main/models/{file}.ckpt"), quiet():
        from huggingface_hub import hf_hub_download

        found = hf_hub_download(repo_id=REPOSITORY, subfolder="models", filename=f"{file}.ckpt")
    return Path(found), file, published


def _target(model: PET, source: str, wanted: str | None) -> tuple[list[Input], str]:
    """The contract's inputs and the target for a head: "energy", or a variant "energy/HEAD"."""
    heads = {name.removeprefix("mtt::").removeprefix("energy/"): name for name in energies_of(model)}
    if not heads:
        found = ", ".join(model.dataset_info.targets) or "none"
        raise MLIPError(f"{source} has no energy in eV among its targets ({found})")
    choices = list(heads)
    if wanted is None and (len(choices) == 1 or "energy" in choices):
        wanted = "energy" if "energy" in choices else choices[0]
    if wanted not in choices:
        found = "no --head was given" if wanted is None else f"--head {wanted} is not one of them"
        raise MLIPError(f"{source} has the heads {', '.join(choices)}, and {found}. Add: --head {choices[0]}")
    inputs = [Input(name="head", choices=choices, value=wanted)] if len(choices) > 1 else []
    return inputs, heads[wanted]


def _calculator(model: PET, target: str, device: str) -> Any:
    """metatomic's, as upet sets it up: the whole model in TorchScript."""
    from metatomic_ase import MetatomicCalculator

    with quiet():
        scripted = torch.jit.script(model.export().eval())
        variant = target.partition("/")[2] or None
        return MetatomicCalculator(scripted, device=device, variants={"energy": variant} if variant else None)


def _original(model_in: Callable[[torch.dtype], PET], target: str, dtype: torch.dtype) -> Callable[[Atoms], Result]:
    """metatrain's own model and autograd, in `dtype`."""
    model: PET | None = None

    def evaluate(atoms: Atoms) -> Result:
        nonlocal model
        model = model or model_in(dtype)
        strain = torch.eye(3, dtype=dtype, requires_grad=True)
        positions = torch.tensor(atoms.positions, dtype=dtype, requires_grad=True)
        cell = torch.tensor(atoms.cell.array * atoms.pbc[:, None], dtype=dtype)
        system = System(torch.tensor(atoms.numbers), positions @ strain, cell @ strain, torch.tensor(atoms.pbc))
        with quiet():
            system = get_system_with_neighbor_lists(system, model.requested_neighbor_lists())
            found = model([system], {target: ModelOutput(sample_kind="atom")})[target].block().values[:, 0]
        slopes = torch.autograd.grad(found.sum(), [positions, strain], allow_unused=True)
        gradient, virial = (
            (torch.zeros_like(of) if slope is None else slope).double().numpy()
            for of, slope in zip((positions, strain), slopes, strict=True)
        )
        energies = found.detach().double().numpy()
        return Result(
            energy=float(energies.sum()),
            atomic_energies=energies,
            forces=-gradient,
            stress=tensor_to_voigt(virial) / atoms.get_volume() if atoms.pbc.all() else None,
        )

    return evaluate

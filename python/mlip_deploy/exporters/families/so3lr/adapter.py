"""Adapter for SO3LR (A. Kabylda et al. 2024): package `so3krates-torch`, its own weights and pickled models.

The layers are in model.py, the terms of pairs in pair_terms.py.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols

from mlip_deploy.artifact.contract import EnergyFrame, Input, ModelIdentity, Setting
from mlip_deploy.artifact.fixtures import Original
from mlip_deploy.artifact.reader import file_sha256
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.checkpoints import load_checkpoint
from mlip_deploy.exporters.families.registry import FAMILIES, ExportOptions, keep_elements
from mlip_deploy.exporters.families.so3lr.model import SO3LREnergy
from mlip_deploy.exporters.families.sources import unknown_source
from mlip_deploy.exporters.interface import Adapted
from mlip_deploy.exporters.settings import default_dtype, quiet
from mlip_deploy.result import VOIGT, Result

NAME = "so3lr"
SHA256 = "b5145564911ff983ed076ccb2bca5ce63454b74c9c8291092695463f1e6732be"
"""of so3krates_torch/pretrained/so3lr/so3lr.model in 0.2.1"""
LONG_CUTOFF, SWITCHING = 12.0, 2.0
"""Å, of the published weights, whose file does not say them: those of so3krates_torch's SO3LRCalculator"""
CITATION = (
    "Kabylda, A.; Frank, J. T.; Suárez-Dou, S.; Khabibrakhmanov, A.; Medrano Sandonas, L.; Unke, O. T.; Chmiela, S.; "
    "Müller, K.-R.; Tkatchenko, A. Molecular simulations with a pretrained neural network and universal pairwise force "
    "fields. ChemRxiv 2024. doi:10.26434/chemrxiv-2024-bdfr0-v3"
)
MOST_ELEMENTS = 100
"""of so3krates_torch's tables, from an atomic number of 0"""
LARGEST_CHARGE = 100
"""e, of the setting's range; the file itself refuses charges that leave no electrons"""


def adapt(source: str, options: ExportOptions) -> Adapted:
    """The published or a stored SO3LR model as an Adapted model.

    Args:
        source: "so3lr", or a file that holds a whole model.
        options: `fuse` False keeps to torch's operators; `elements`; `trust_checkpoint` for a file.

    Raises:
        MLIPError: for an unknown source, a file that is not trusted or no SO3LR model, kinds of layers that are not
            known, or elements that the model lacks.
    """
    try:
        with quiet():
            import so3krates_torch.modules.models  # noqa: F401
    except ImportError as error:
        raise MLIPError(f"so3krates_torch cannot be imported ({error}). Type: {FAMILIES['so3lr'].install}") from error
    model, name, path = _load(source, options.trust_checkpoint)
    published = file_sha256(path) == SHA256
    _complete(model, published, source)
    known = _trained_elements(model, options.elements, source)
    elements = keep_elements(known, options.elements, name)
    numbers = [chemical_symbols.index(symbol) for symbol in elements]

    def in_type(dtype: torch.dtype) -> Any:
        return copy.deepcopy(model).to(dtype).requires_grad_(False)

    def energy_model(dtype: torch.dtype) -> SO3LREnergy:
        tabulate = options.fuse and options.tabulate(dtype == torch.float32)
        in_float64 = in_type(torch.float64) if tabulate else None
        return SO3LREnergy(in_type(dtype), in_float64, numbers, options.fuse)

    return Adapted(
        identity=ModelIdentity(
            family="so3lr",
            name=name,
            source_sha256=file_sha256(path),
            license="MIT" if published else "unknown",
            citation=CITATION,
        ),
        elements=elements,
        cutoff=float(model.r_max_lr),
        message_passing_layers=int(model.num_layers) + 1,  # charges and volumes of neighbours are one more
        parallel="exchange",
        energy_frame=EnergyFrame(functional="PBE0 (SO3LR data)", hubbard_u="none", corrections="none", dispersion="MBD")
        if published
        else EnergyFrame.unknown(),
        # The weights of its spin embedding have the spread with which they were drawn: a spin would add random numbers.
        inputs=[Input(name="spin_multiplicity", choices=["1"], value="1")],
        settings=(Setting(name="charge", kind="integer", unit="e", range=(-LARGEST_CHARGE, LARGEST_CHARGE)),),
        inversion_symmetric=True,  # its features are compared by their lengths alone
        energy_model=energy_model,
        original=Original(
            package=f"so3krates-torch {FAMILIES['so3lr'].version()}",
            float64=_original(model, torch.float64),
            float32=_original(model, torch.float32),
            calculator=lambda dtype, device, accelerator: _calculator(model, dtype, device),
            accepts=lambda atoms: bool(atoms.numbers.sum() > atoms.info["charge"]),  # electrons are left
        ),
    )


def _load(source: str, trust: bool) -> tuple[Any, str, Path]:
    """(so3krates_torch's model, name, file) of a source."""
    import so3krates_torch

    path = Path(source)
    if source == NAME:
        path = Path(so3krates_torch.__path__[0], "pretrained", "so3lr", "so3lr.model")
        return load_checkpoint(path, trust=True), NAME, path
    if not path.is_file():
        raise unknown_source(source, "an SO3LR model", [NAME])
    return load_checkpoint(path, trust), path.stem, path


def _complete(model: Any, published: bool, source: str) -> None:
    """Find out that every layer and term is known, and set the published model's long cutoff.

    Raises:
        MLIPError: names what is not known.
    """
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    if kind != "so3krates_torch.modules.models.SO3LR":
        raise MLIPError(f"'{source}' holds a {kind}, expected so3krates_torch.modules.models.SO3LR")
    if published:
        model.r_max_lr, model.dispersion_energy_cutoff_lr_damping = LONG_CUTOFF, SWITCHING
    for name in ("r_max_lr", "dispersion_energy_cutoff_lr_damping"):
        if getattr(model, name) is None:
            raise MLIPError(
                f"'{source}' does not say the model's {name} (Å), which its calculator was given. Type in Python: "
                f"model = torch.load('{source}', weights_only=False); model.{name} = ...; torch.save(model, 'NEW')"
            )
    expected = {
        "zbl_repulsion_bool": True,
        "electrostatic_energy_bool": True,
        "dispersion_energy_bool": True,
        "use_charge_embed": True,
        "initialize_ev_to_zeros": True,
        "neighborlist_format_lr": "sparse",
        "qk_non_linearity": "identity",
    }
    for name, value in expected.items():
        if getattr(model, name) != value:
            raise MLIPError(f"'{source}' has {name}={getattr(model, name)!r}; only {value!r} can be exported")
    if getattr(model, "use_pme", False):
        raise MLIPError(f"'{source}' has use_pme=True: its electrostatics are an Ewald sum, which is not known")
    for layer in model.euclidean_transformers:
        attention = type(layer.euclidean_attention_block).__name__
        if attention != "EuclideanAttentionBlock":
            raise MLIPError(
                f"'{source}' has layers of kind {attention}. Put their weights into a plain model with "
                "so3krates_torch.tools.finetune first"
            )


def _trained_elements(model: Any, chosen: tuple[str, ...], source: str) -> list[str]:
    """Elements that training has seen: the network has rows for all, but learns a scale for those that occur."""
    scales = model.atomic_energy_output_block.energy_scales.weight[0, : MOST_ELEMENTS - 1]
    numbers = (torch.nonzero(scales != 1.0).squeeze(1) + 1).tolist()
    if not numbers and not chosen:
        raise MLIPError(f"'{source}' does not tell which elements it was trained on. Name them: --elements H,C,O")
    return [chemical_symbols[z] for z in numbers or range(1, MOST_ELEMENTS)]


def _calculator(model: Any, dtype: str, device: str) -> Any:
    """so3krates_torch's own."""
    from so3krates_torch.calculator.so3 import TorchkratesCalculator

    return TorchkratesCalculator(
        models=copy.deepcopy(model), r_max_lr=model.r_max_lr, default_dtype=dtype, device=device, compute_stress=True
    )


def _original(model: Any, dtype: torch.dtype) -> Callable[[Atoms], Result]:
    """so3krates_torch's own neighbours, layers, terms and derivatives in `dtype`.

    The constants of the elements are added in float64: the noise of the original in float32 is then that of its layers.
    """
    own: Any = None
    shifts = model.atomic_energy_output_block.energy_shifts.detach().double()

    def evaluate(atoms: Atoms) -> Result:
        nonlocal own
        if own is None:
            own = copy.deepcopy(model).to(dtype).eval().requires_grad_(False)
            own.atomic_energy_output_block.energy_shifts.zero_()
        with default_dtype(dtype), quiet():
            found = own(_batch(atoms, own), compute_stress=bool(atoms.pbc.all()))
        atomic_energies = found["node_energy"].detach().squeeze(1).double() + shifts[torch.tensor(atoms.numbers) - 1]
        stress = None
        if atoms.pbc.all():
            tensor = found["stress"].detach().double()[0]
            stress = np.array([float(tensor[a, b]) for a, b in VOIGT])
        return Result(
            energy=float(atomic_energies.sum()),
            atomic_energies=atomic_energies.numpy(),
            forces=found["forces"].detach().double().numpy(),
            stress=stress,
        )

    return evaluate


def _batch(atoms: Atoms, model: Any) -> dict[str, Any]:
    """What the model takes, in torch's default type. The charge is in the atoms' info."""
    from so3krates_torch.data.atomic_data import AtomicData
    from so3krates_torch.data.utils import KeySpecification, config_from_atoms
    from so3krates_torch.tools.torch_geometric.dataloader import DataLoader
    from so3krates_torch.tools.utils import AtomicNumberTable

    config = config_from_atoms(atoms, key_specification=KeySpecification(info_keys={"total_charge": "charge"}))
    table = AtomicNumberTable(range(1, model.num_elements + 1))
    data = AtomicData.from_config(config, z_table=table, cutoff=model.r_max, cutoff_lr=model.r_max_lr)
    batch: dict[str, Any] = next(iter(DataLoader([data], batch_size=1))).to_dict()
    return batch

"""Adapter for eSEN (X. Fu et al. 2025) of fairchem-core 2, inference checkpoints `*.pt`.

The layers are in model.py, the reader of checkpoints in checkpoint.py; the reference, fairchem's own model, comes from
framework.py.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.data import chemical_symbols
from ase.neighborlist import neighbor_list
from torch import Tensor, nn

from mlip_deploy.artifact.contract import EnergyFrame, Input, ModelIdentity, Setting
from mlip_deploy.artifact.fixtures import Original
from mlip_deploy.artifact.reader import file_sha256
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.families.fairchem.checkpoint import Checkpoint, EnergyTask, read_checkpoint
from mlip_deploy.exporters.families.fairchem.framework import build_model, evaluate
from mlip_deploy.exporters.families.fairchem.model import LARGEST_CHARGE, LARGEST_SPIN, FairchemEnergy
from mlip_deploy.exporters.families.registry import FAMILIES, ExportOptions, keep_elements
from mlip_deploy.exporters.interface import Adapted
from mlip_deploy.exporters.settings import default_dtype
from mlip_deploy.result import VOIGT, Result

ESEN_CITATION = (
    "Fu, X.; Wood, B. M.; Barroso-Luque, L.; Levine, D. S.; Gao, M.; Dzamba, M.; Zitnick, C. L. Learning smooth and "
    "expressive interatomic potentials for physical property prediction. arXiv:2502.12147 (2025)"
)
MOLECULES = "omol"
"""the one dataset whose calculations have a charge and a spin, by fairchem"""


def adapt(source: str, options: ExportOptions) -> Adapted:
    """A stored eSEN model as an Adapted model.

    Args:
        source: a file.
        options: `modal`, the task; `elements`; `trust_checkpoint`.

    Raises:
        MLIPError: for an unknown source, a file that is no checkpoint of eSEN, layers or heads that are not known, or
            elements that the model lacks.
    """
    path = Path(source)
    if not path.is_file():
        raise MLIPError(f"'{source}': no such model file")
    checkpoint = read_checkpoint(path, options.trust_checkpoint)
    dataset = _dataset(checkpoint, options.modal)
    task = checkpoint.tasks[dataset]
    model = build_model(checkpoint, torch.float64)
    _refuse_unknown(model, source)
    backbone = model.backbone
    known = _elements(backbone.max_num_elements, task)
    elements = keep_elements(known, options.elements, path.stem)
    numbers = [chemical_symbols.index(symbol) for symbol in elements]
    has_charge = dataset == MOLECULES
    references = torch.zeros(len(numbers), dtype=torch.float64)
    if task.references is not None:
        references = task.references[numbers]

    def energy_model(dtype: torch.dtype) -> nn.Module:
        built = model if dtype == torch.float64 else build_model(checkpoint, dtype)
        with default_dtype(dtype):
            embedded = dataset if backbone.use_dataset_embedding else None
            block = _head(built).energy_block
            return FairchemEnergy(built.backbone, block, numbers, embedded, task.rmsd, references, has_charge)

    charge = Setting(name="charge", kind="integer", unit="e", range=(-LARGEST_CHARGE, LARGEST_CHARGE))
    spin = Setting(name="spin", kind="integer", range=(0, LARGEST_SPIN))
    fixed = [Input(name="task", choices=sorted(checkpoint.tasks), value=dataset)]
    if not has_charge:
        fixed += [Input(name=setting.name, choices=["0"], value="0") for setting in (charge, spin)]
    return Adapted(
        identity=ModelIdentity(
            family="fairchem",
            name=path.stem,
            source_sha256=file_sha256(path),
            license="unknown",
            citation=ESEN_CITATION,
        ),
        elements=elements,
        cutoff=float(backbone.cutoff),
        message_passing_layers=len(backbone.blocks),
        parallel="exchange",
        energy_frame=EnergyFrame.unknown(),
        inputs=fixed,
        settings=(charge, spin) if has_charge else (),
        rotation_symmetric=backbone.ff_type != "grid",  # a network of values on a grid of directions
        energy_model=energy_model,
        original=Original(
            package=f"fairchem-core {FAMILIES['fairchem'].version()}",
            float64=_original(model, dataset, task, torch.float64),
            float32=_original(None, dataset, task, torch.float32, lambda: build_model(checkpoint, torch.float32)),
            calculator=lambda dtype, device, accelerator: _calculator(path, dataset, dtype, device),
        ),
    )


def _dataset(checkpoint: Checkpoint, chosen: str | None) -> str:
    names = sorted(checkpoint.tasks)
    if chosen is None and len(names) == 1:
        return names[0]
    if chosen not in names:
        given = "several tasks" if chosen is None else f"no task {chosen}"
        raise MLIPError(f"'{checkpoint.path}' has {given}: {', '.join(names)}. Choose one: --modal {names[0]}")
    return chosen


def _head(model: Any) -> Any:
    return next(iter(model.output_heads.values()))


def _refuse_unknown(model: Any, source: str) -> None:
    """Find out that every layer is known.

    Raises:
        MLIPError: names what is not.
    """
    backbone = model.backbone
    if backbone.regress_config.direct_forces:
        raise MLIPError(
            f"'{source}' has direct_forces: its forces are an output of their own and no derivative of its energy, so "
            "that no dynamics keeps its energy. Export a model that conserves energy"
        )
    heads = {name: type(head).__name__ for name, head in model.output_heads.items()}
    if list(heads.values()) != ["MLP_EFS_Head"]:
        found = ", ".join(f"{name} ({kind})" for name, kind in heads.items())
        raise MLIPError(f"'{source}' has the heads {found}; expected one MLP_EFS_Head")
    expected = [
        ("reduce", _head(model).reduce, ["sum"], ""),
        ("norm_type", backbone.norm_type, ["rms_norm_sh"], ""),
        ("act_type", backbone.act_type, ["gate"], ", whose energies depend on random angles that fairchem draws"),
        (
            "chg_spin_emb_type",
            backbone.chg_spin_emb_type,
            ["pos_emb", "rand_emb"],
            ", which fairchem has in float32 alone",
        ),
    ]
    for name, value, known, reason in expected:
        if value not in known:
            raise MLIPError(f"'{source}' has {name}={value!r}{reason}. Known: {', '.join(known)}")
    cutoff, most = float(backbone.cutoff), int(backbone.max_neighbors)
    in_diamond = int((neighbor_list("i", bulk("C", "diamond", a=3.567), cutoff) == 0).sum())
    if 0 < most < in_diamond:
        raise MLIPError(
            f"'{source}' sees the {most} nearest neighbours of an atom alone (max_neighbors); within {cutoff:g} Å "
            f"diamond has {in_diamond}. Its energy jumps where another neighbour becomes one of the nearest, and no "
            "engine here leaves neighbours out. Export a model with a max_neighbors of 300"
        )


def _elements(n_elements: int, task: EnergyTask) -> list[str]:
    """Those of the embedding; without those whose reference is zero, which fairchem's data do not have."""
    numbers = range(1, min(n_elements, len(chemical_symbols)))
    references = task.references
    if references is not None:
        numbers = [z for z in numbers if z < len(references) and references[z] != 0.0]  # type: ignore[assignment]
    return [chemical_symbols[z] for z in numbers]


def _calculator(path: Path, dataset: str, dtype: str, device: str) -> Any:
    """fairchem's own, with the settings that it has for one composition: experts merged, no recomputation."""
    try:
        from fairchem.core import FAIRChemCalculator
        from fairchem.core.units.mlip_unit import InferenceSettings, load_predict_unit
    except ImportError as error:
        raise MLIPError(
            f"fairchem's calculator needs all that its package asks for ({error}). Type: pip install fairchem-core"
        ) from error
    settings = InferenceSettings(activation_checkpointing=False, merge_mole=True, base_precision_dtype=dtype)
    return FAIRChemCalculator(load_predict_unit(path, settings, device=device), task_name=dataset)


def _original(
    model: Any, dataset: str, task: EnergyTask, dtype: torch.dtype, build: Callable[[], Any] | None = None
) -> Callable[[Atoms], Result]:
    """fairchem's own neighbours, layers and derivatives in `dtype`, its normaliser and references in float64.

    Args:
        model: of the type; None to build it when it is needed.
    """

    def in_order(stress: Tensor) -> np.ndarray[Any, Any]:
        return np.array([float(stress[a, b]) for a, b in VOIGT])

    def evaluate_original(atoms: Atoms) -> Result:
        nonlocal model
        if model is None:
            assert build is not None
            model = build()
        outputs, forces, stress = evaluate(model, atoms, dataset, task.key, dtype)
        energies = task.rmsd * outputs.double()
        if task.references is not None:
            energies = energies + task.references[torch.tensor(atoms.numbers)]
        return Result(
            energy=float(energies.sum()),
            atomic_energies=energies.numpy(),
            forces=(task.rmsd * forces.double()).numpy(),
            stress=in_order(task.rmsd * stress.double()) if atoms.pbc.all() else None,
        )

    return evaluate_original

"""Adapter for eSEN (X. Fu et al. 2025) and UMA (B. M. Wood et al. 2025): inference checkpoints of fairchem-core 2.

UMA's matrices are sums of those of experts, whose weights depend on composition, task, charge and spin: an export fixes
these. The layers are in model.py, the reader of checkpoints in checkpoint.py; the reference, fairchem's own model with
its experts, comes from framework.py.
"""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.data import chemical_symbols
from ase.formula import Formula
from ase.neighborlist import neighbor_list
from torch import nn

from mlip_deploy.artifact.contract import EnergyFrame, Input, ModelIdentity, Setting
from mlip_deploy.artifact.fixtures import Original
from mlip_deploy.artifact.reader import file_sha256
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.families.fairchem.checkpoint import Checkpoint, EnergyTask, read_checkpoint
from mlip_deploy.exporters.families.fairchem.framework import build_model, evaluate, head_of, mix_experts
from mlip_deploy.exporters.families.fairchem.model import (
    LARGEST_CHARGE,
    LARGEST_SPIN,
    FairchemEnergy,
    FixedComposition,
    formula,
)
from mlip_deploy.exporters.families.registry import FAMILIES, ExportOptions, keep_elements
from mlip_deploy.exporters.fixed_settings import value_of
from mlip_deploy.exporters.interface import Adapted
from mlip_deploy.result import VOIGT, Result

ESEN_CITATION = (
    "Fu, X.; Wood, B. M.; Barroso-Luque, L.; Levine, D. S.; Gao, M.; Dzamba, M.; Zitnick, C. L. Learning smooth and "
    "expressive interatomic potentials for physical property prediction. arXiv:2502.12147 (2025)"
)
UMA_CITATION = (
    "Wood, B. M.; Dzamba, M.; Fu, X.; et al. UMA: A family of universal models for atoms. arXiv:2506.23971 (2025)"
)
MOLECULES = "omol"
"""the one dataset whose calculations have a charge and a spin, by fairchem"""
CHARGE = Setting(name="charge", kind="integer", unit="e", range=(-LARGEST_CHARGE, LARGEST_CHARGE))
SPIN = Setting(name="spin", kind="integer", range=(0, LARGEST_SPIN))


def adapt(source: str, options: ExportOptions) -> Adapted:
    """A stored eSEN or UMA model as an Adapted model.

    Args:
        source: a file.
        options: `modal`, the task; `elements`; `trust_checkpoint`; for UMA `fix`, with its composition; `fuse` False
            takes torch's operators alone.

    Raises:
        MLIPError: for an unknown source, a file that is no checkpoint of eSEN or UMA, layers or heads that are not
            known, elements that the model lacks, or a UMA without a composition.
    """
    path = Path(source)
    if not path.is_file():
        raise MLIPError(f"'{source}': no such model file")
    checkpoint = read_checkpoint(path, options.trust_checkpoint)
    dataset = _dataset(checkpoint, options.modal)
    task = checkpoint.tasks[dataset]
    model = build_model(checkpoint, torch.float64)
    _refuse_unknown(model, source)
    known = _elements(model.backbone.max_num_elements, task)
    has_experts = getattr(model.backbone, "num_experts", 0) > 0
    has_charge = dataset == MOLECULES
    name, composition = "", None
    fixed = {"charge": 0, "spin": 0}
    inputs = [Input(name="task", choices=sorted(checkpoint.tasks), value=dataset)]
    if has_experts:
        composition = _composition(source, options, has_charge)
        if has_charge:
            fixed = {setting.name: int(value_of(setting, options.fix[setting.name])) for setting in (CHARGE, SPIN)}
        name = formula(list(composition), list(composition.values()))
        inputs.append(Input(name="composition", choices=[name], value=name))
    if has_experts or not has_charge:
        inputs += [Input(name=one, choices=[str(value)], value=str(value)) for one, value in fixed.items()]
    elements = keep_elements(known, tuple(composition or options.elements), path.stem)
    numbers = [chemical_symbols.index(symbol) for symbol in elements]
    references = torch.zeros(len(numbers), dtype=torch.float64) if task.references is None else task.references[numbers]
    settings = (CHARGE, SPIN) if has_charge and not has_experts else ()
    example = Atoms(name if composition else elements)
    example.info.update(fixed)
    served = mix_experts(model, example, dataset, source)

    def energy_model(dtype: torch.dtype) -> nn.Module:
        of_type = copy.deepcopy(served).to(dtype)
        embedded = dataset if of_type.backbone.use_dataset_embedding else None
        block = head_of(of_type).energy_block
        energies = FairchemEnergy(
            of_type.backbone,
            block,
            numbers,
            embedded,
            task.rmsd,
            references,
            (fixed["charge"], fixed["spin"]),
            options.fuse,
        )
        if composition is None:
            return energies
        return FixedComposition(energies, elements, [composition[symbol] for symbol in elements])

    def original(dtype: torch.dtype) -> Callable[[Atoms], Result]:
        build = (lambda: model) if dtype == torch.float64 else (lambda: build_model(checkpoint, dtype))
        return _original(build, dataset, task, {} if settings else fixed, dtype)

    return Adapted(
        identity=ModelIdentity(
            family="fairchem",
            name=path.stem,
            source_sha256=file_sha256(path),
            license="unknown",
            citation=UMA_CITATION if has_experts else ESEN_CITATION,
        ),
        elements=elements,
        cutoff=float(served.backbone.cutoff),
        message_passing_layers=len(served.backbone.blocks),
        parallel="exchange",
        energy_frame=EnergyFrame.unknown(),
        inputs=inputs,
        settings=settings,
        composition=composition,
        rotation_symmetric=served.backbone.ff_type != "grid",  # a network of values on a grid of directions
        energy_model=energy_model,
        original=Original(
            package=f"fairchem-core {FAMILIES['fairchem'].version()}",
            float64=original(torch.float64),
            float32=original(torch.float32),
            calculator=lambda dtype, device, accelerator: _calculator(path, dataset, dtype, device),
        ),
    )


def _composition(source: str, options: ExportOptions, has_charge: bool) -> dict[str, int]:
    """Numbers of atoms by element, without a common factor, of `--fix composition=`."""
    needed = ["composition", *(("charge", "spin") if has_charge else ())]
    absent = [name for name in needed if name not in options.fix]
    if absent:
        example = {"composition": "NaCl", "charge": "0", "spin": "1"}
        raise MLIPError(
            f"'{source}' is a UMA, whose experts are mixed for one {', '.join(needed)}. Say which: "
            + " ".join(f"--fix {name}={example[name]}" for name in absent)
        )
    given = str(options.fix["composition"])
    try:
        counts = Formula(given).count()
    except ValueError:
        counts = {}
    if not counts or not set(counts) <= set(chemical_symbols[1:]):
        raise MLIPError(f"--fix composition={given}: expected a chemical formula such as NaCl or Si8O16")
    if options.elements and set(options.elements) != set(counts):
        raise MLIPError(f"--elements {' '.join(options.elements)}: {given} has its own elements. Leave --elements out")
    factor = math.gcd(*counts.values())
    return {symbol: counts[symbol] // factor for symbol in sorted(counts, key=chemical_symbols.index)}


def _dataset(checkpoint: Checkpoint, chosen: str | None) -> str:
    names = sorted(checkpoint.tasks)
    if chosen is None and len(names) == 1:
        return names[0]
    if chosen not in names:
        given = "several tasks" if chosen is None else f"no task {chosen}"
        raise MLIPError(f"'{checkpoint.path}' has {given}: {', '.join(names)}. Choose one: --modal {names[0]}")
    return chosen


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
    heads = {name: type(getattr(head, "head", head)).__name__ for name, head in model.output_heads.items()}
    if list(heads.values()) != ["MLP_EFS_Head"]:
        found = ", ".join(f"{name} ({kind})" for name, kind in heads.items())
        raise MLIPError(f"'{source}' has the heads {found}; expected one MLP_EFS_Head")
    expected = [
        ("reduce", head_of(model).reduce, ["sum"], ""),
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
    if model.model_id == "UMA-S-1.2" and backbone.use_composition_embedding:
        raise MLIPError(
            f"'{source}' is UMA-S-1.2, whose mixture of experts depends on the number of atoms, by a mistake in its "
            "training. Export UMA-S-1.2.1"
        )
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
    references = task.references
    return [
        chemical_symbols[z]
        for z in range(1, min(n_elements, len(chemical_symbols)))
        if references is None or (z < len(references) and references[z] != 0.0)
    ]


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
    build: Callable[[], Any], dataset: str, task: EnergyTask, fixed: dict[str, int], dtype: torch.dtype
) -> Callable[[Atoms], Result]:
    """fairchem's own neighbours, layers and derivatives in `dtype`, its normaliser and references in float64.

    Args:
        build: makes the model, with its experts, when it is needed.
        fixed: charge and spin, where the atoms do not have them.
    """
    model: Any = None

    def evaluate_original(atoms: Atoms) -> Result:
        nonlocal model
        model = model or build()
        atoms = atoms.copy()
        atoms.info.update(fixed)
        outputs, forces, stress = evaluate(model, atoms, dataset, task.key, dtype)
        energies = task.rmsd * outputs.double()
        if task.references is not None:
            energies = energies + task.references[torch.tensor(atoms.numbers)]
        tensor = task.rmsd * stress.double()
        return Result(
            energy=float(energies.sum()),
            atomic_energies=energies.numpy(),
            forces=(task.rmsd * forces.double()).numpy(),
            stress=np.array([float(tensor[a, b]) for a, b in VOIGT]) if atoms.pbc.all() else None,
        )

    return evaluate_original

"""Adapter for MACE (I. Batatia et al., NeurIPS 2022): package `mace-torch`, models `*.model`.

A model file is a pickled module, so that MACE's own code is what runs: see `mace_plain`. The default is the same
arithmetic on mlip's operators: see `mace_fused`.
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from torch import nn

from mlip_deploy.artifact.contract import EnergyFrame, Input, ModelIdentity
from mlip_deploy.artifact.fixtures import Original
from mlip_deploy.artifact.reader import file_sha256
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.checkpoints import load_checkpoint
from mlip_deploy.exporters.families.mace.elements import restrict
from mlip_deploy.exporters.families.mace.fused import FusedMACEEnergy
from mlip_deploy.exporters.families.mace.inputs import SETTINGS, settings_of
from mlip_deploy.exporters.families.mace.plain import INTERACTIONS, MACEEnergy
from mlip_deploy.exporters.families.registry import ExportOptions, keep_elements
from mlip_deploy.exporters.families.sources import downloading, unknown_source
from mlip_deploy.exporters.interface import Adapted
from mlip_deploy.exporters.layers.equivariant import NotFusible, keeps_parity, script
from mlip_deploy.exporters.settings import default_dtype, no_log, quiet
from mlip_deploy.result import Result

CITATION = (
    "Batatia, I.; Kovács, D. P.; Simm, G. N. C.; Ortner, C.; Csányi, G. MACE: Higher Order Equivariant Message Passing "
    "Neural Networks for Fast and Accurate Force Fields. Advances in Neural Information Processing Systems 35, 2022."
)


def adapt(source: str, options: ExportOptions) -> Adapted:
    """A MACE model as an Adapted model.

    Args:
        source: a model file, or the name of a foundation model that mace-torch downloads ("medium-mpa-0").
        options: `fuse` False keeps MACE's own layers; `head`, `elements`, `trust_checkpoint`.

    Raises:
        MLIPError: when the source is unknown, cannot be downloaded or read, holds another kind of model, lacks an
            element that is wanted, has several heads and none was chosen, or has a layer without a fused form while
            `options.fuse` is true.
    """
    path, name = _locate(source)
    model = _load(path, options.trust_checkpoint)
    settings = settings_of(model, path)
    inputs, head = _head(model, source, options.head)
    known = [chemical_symbols[int(z)] for z in model.atomic_numbers]
    elements = keep_elements(known, options.elements, name)
    exported = restrict(model, [known.index(symbol) for symbol in elements]) if elements != known else model
    license_, frame = (
        FOUNDATION.get(name, ("unknown", EnergyFrame.unknown())) if not Path(source).is_file() else _OF_A_FILE
    )
    return Adapted(
        identity=ModelIdentity(
            family="mace", name=name, source_sha256=file_sha256(path), license=license_, citation=CITATION
        ),
        elements=elements,
        cutoff=float(model.r_max),
        message_passing_layers=len(model.interactions),
        parallel="exchange",
        energy_frame=frame,
        inputs=inputs,
        inversion_symmetric=keeps_parity(model),
        energy_model=lambda dtype: _energy_model(exported, dtype, head, options),
        original=Original(
            package=f"mace-torch {version('mace-torch')}",
            float64=_original(model, "float64", head),
            float32=_original(model, "float32", head),
            calculator=lambda dtype, device, accelerator: _calculator(model, dtype, device, accelerator, head),
            accelerators=("cueq", "oeq"),
        ),
        settings=settings,
        script=script,
    )


def _energy_model(model: Any, dtype: torch.dtype, head: str, options: ExportOptions) -> nn.Module:
    index = _heads(model).index(head)
    converted = _converted(model, dtype)
    if not options.fuse:
        return MACEEnergy(converted, index)
    try:
        tabulate = options.tabulate(dtype == torch.float32)
        return FusedMACEEnergy(converted, index, dtype, tabulate, options.note)
    except NotFusible as reason:
        raise MLIPError(f"{reason}. This model has no fused form; export its own layers: add --no-fuse") from reason


def _converted(model: Any, dtype: torch.dtype) -> Any:
    """A copy in another type. Isolated atoms' energies keep theirs: they are added in float64."""
    energies = model.atomic_energies_fn.atomic_energies.detach().double()
    converted = copy.deepcopy(model).to(dtype).eval()
    converted.atomic_energies_fn.atomic_energies = energies
    return converted


# ---- where models come from ----------------------------------------------------------------------------------------


def _mp(functional: str, hubbard_u: str) -> EnergyFrame:
    return EnergyFrame(functional=functional, hubbard_u=hubbard_u, corrections="none", dispersion="none")


_OF_A_FILE = ("unknown", EnergyFrame.unknown())
_MPTRJ = _mp("PBE (MPtrj)", "MP2020 values")
_OFF = EnergyFrame(functional="ωB97M/def2-TZVPPD (SPICE)", hubbard_u="none", corrections="none", dispersion="D3(BJ)")
_ASL = "ASL (academic, https://github.com/gabor1/ASL)"

FOUNDATION = {
    **dict.fromkeys(("small", "medium", "large"), ("MIT", _MPTRJ)),
    **dict.fromkeys(("small-0b", "medium-0b", "small-0b2", "medium-0b2", "large-0b2"), ("MIT", _MPTRJ)),
    "medium-0b3": ("MIT", _MPTRJ),
    "medium-mpa-0": ("MIT", _mp("PBE (MPtrj, sAlex)", "MP2020 values")),
    "small-omat-0": (_ASL, _mp("PBE (OMat24)", "OMat24 values")),
    "medium-omat-0": (_ASL, _mp("PBE (OMat24)", "OMat24 values")),
    "mace-matpes-pbe-0": (_ASL, _mp("PBE (MatPES)", "none")),
    "mace-matpes-r2scan-0": (_ASL, _mp("r2SCAN (MatPES)", "none")),
    # The energy frame of these two depends on the head, and the heads are not described with the models.
    **dict.fromkeys(("mh-0", "mh-1"), (_ASL, EnergyFrame.unknown())),
    **{f"off-{size}": (_ASL, _OFF) for size in ("small", "medium", "large")},
}
"""Licence and energy frame as published with the models; `off-*` are MACE-OFF23. docs/families.md has the sources."""


def _locate(source: str) -> tuple[Path, str]:
    """(file, name) of a source; downloads a named model through mace-torch."""
    path = Path(source)
    if path.is_file():
        return path, path.stem
    from mace.calculators import foundations_models as foundations

    names = [*foundations.mace_mp_urls, *(f"off-{size}" for size in foundations.mace_off_urls)]
    if source not in names:
        raise unknown_source(source, "a MACE foundation model", names)
    size = source.removeprefix("off-")
    url = foundations.mace_mp_urls[source] if size == source else foundations.mace_off_urls[size]
    with downloading(source, url), contextlib.redirect_stdout(io.StringIO()):
        found = foundations.download_mace_mp_checkpoint(source if size == source else url)
    return Path(found), source


def _load(path: Path, trust: bool) -> Any:
    with quiet(), no_log(), contextlib.redirect_stdout(io.StringIO()):
        model: Any = load_checkpoint(path, trust)
    if isinstance(model, dict):
        raise MLIPError(f"{path} holds the state of a training run. Give the file *.model that the run wrote beside it")
    kind = getattr(model, "original_name", type(model).__name__)
    if kind not in ("MACE", "ScaleShiftMACE") or not hasattr(model, "interactions"):
        raise MLIPError(f"{path} holds a {kind}. Models of class MACE and ScaleShiftMACE can be exported")
    if isinstance(model, torch.jit.ScriptModule):
        raise MLIPError(f"{path} was compiled to TorchScript already. Give the file *.model that it was made from")
    for interaction in model.interactions:
        if type(interaction).__name__ not in INTERACTIONS:
            found = type(interaction).__name__
            raise MLIPError(f"{path} has a layer {found}. Layers that can be exported: {', '.join(INTERACTIONS)}")
        if getattr(getattr(interaction, "cueq_config", None), "enabled", False) or hasattr(interaction, "conv_fusion"):
            raise MLIPError(
                f"{path} was converted for cuequivariance or openequivariance. Give the file it was made of"
            )
    return model


def _heads(model: Any) -> list[str]:
    return list(getattr(model, "heads", None) or ["Default"])


def _head(model: Any, source: str, wanted: str | None) -> tuple[list[Input], str]:
    choices = _heads(model)
    if len(choices) == 1:
        if wanted not in (None, choices[0]):
            raise MLIPError(f"--head {wanted}: {source} has one head, {choices[0]}. Leave --head out")
        return [], choices[0]
    if wanted not in choices:
        found = "no --head was given" if wanted is None else f"--head {wanted} is not one of them"
        raise MLIPError(f"{source} has several heads ({', '.join(choices)}) and {found}. Add: --head {choices[0]}")
    return [Input(name="head", choices=choices, value=wanted)], wanted


# ---- the original --------------------------------------------------------------------------------------------------


def _calculator(model: Any, dtype: str, device: str, accelerator: str | None, head: str) -> Any:
    """MACE's own."""
    from mace.calculators import MACECalculator

    converted = copy.deepcopy(model).to(device, getattr(torch, dtype))
    chosen = {f"enable_{accelerator}": True} if accelerator else {}
    return MACECalculator(models=[converted], device=device, default_dtype=dtype, head=head, **chosen)


def _first_energies(model: Any, atoms: Atoms, head: str) -> np.ndarray:
    """What MACE reads out of the first features, eV [n]: part of its energy, which its atomic energies leave out."""
    kinds = torch.tensor([model.atomic_numbers.tolist().index(number) for number in atoms.numbers])
    dtype = next(model.node_embedding.parameters()).dtype
    one_hot = nn.functional.one_hot(kinds, model.atomic_numbers.numel()).to(dtype)
    given = {name: torch.tensor([atoms.info[SETTINGS[name][0]]], dtype=dtype) for name in model.embedding_specs}
    index = _heads(model).index(head)
    with torch.no_grad():
        features = model.node_embedding(one_hot) + model.joint_embedding(torch.zeros_like(kinds), given)
        return model.embedding_readout(features, torch.full_like(kinds, index))[:, index].double().numpy()  # type: ignore[no-any-return]


def _original(model: Any, dtype: str, head: str) -> Callable[[Atoms], Result]:
    """MACE's own ASE calculator."""
    calculator: Any = None

    def evaluate(atoms: Atoms) -> Result:
        nonlocal calculator
        with quiet(), no_log():
            if calculator is None:
                calculator = _calculator(model, dtype, "cpu", None, head)
            with default_dtype(getattr(torch, dtype)):
                calculator.calculate(atoms)
        results = calculator.results
        energies = np.asarray(results["energies"], dtype=float).reshape(-1)
        if hasattr(model, "embedding_readout"):
            energies = energies + _first_energies(calculator.models[0], atoms, head)
        return Result(
            energy=float(energies.sum()),
            atomic_energies=energies,
            forces=results["forces"].astype(float),
            stress=results["stress"].astype(float) if atoms.pbc.all() else None,
        )

    return evaluate

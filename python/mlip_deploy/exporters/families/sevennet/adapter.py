"""Adapter for SevenNet (Y. Park et al., J. Chem. Theory Comput. 2024): package `sevenn`, checkpoints `*.pth`.

SevenNet's own layers are used as they are, except where they assume that every node is an owned atom: the
convolutions, which get their neighbours' features through `mlip::ghost_gather`, and the species embedding with
the first layer's linear maps, which depend on the element alone and become tables.
"""

import contextlib
from collections.abc import Callable, Iterator
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
from mlip_deploy.exporters import checkpoints
from mlip_deploy.exporters.families.registry import ExportOptions, keep_elements
from mlip_deploy.exporters.families.sevennet.chunked import ChunkedSevenNet
from mlip_deploy.exporters.families.sevennet.fused import FusedSevenNetEnergy
from mlip_deploy.exporters.families.sevennet.plain import OneHot, SevenNetEnergy
from mlip_deploy.exporters.interface import Adapted
from mlip_deploy.exporters.layers.equivariant import NotFusible, script
from mlip_deploy.exporters.settings import default_dtype, quiet
from mlip_deploy.result import Result

CITATION = (
    "Park, Y.; Kim, J.; Hwang, S.; Han, S. Scalable Parallel Algorithm for Graph Neural Network Interatomic "
    "Potentials in Molecular Dynamics Simulations. J. Chem. Theory Comput. 2024, 20, 4857. doi:10.1021/acs.jctc.4c00190"
)


def adapt(source: str, options: ExportOptions) -> Adapted:
    """A named or stored SevenNet checkpoint as an Adapted model.

    Args:
        source: a name that sevenn knows ("7net-0") or a checkpoint file.
        options: `fuse` False keeps SevenNet's own layers, which is slower and needs no more than
            `mlip::ghost_gather`.

    Raises:
        MLIPError: when sevenn is missing, the source is unknown, the modality is missing or wrong, or the model has a
            layer without a fused form and `options.fuse` is true.
    """
    checkpoint = _load(source, options.trust_checkpoint)
    config = checkpoint.config
    inputs, modal = _modality(config, source, options.modal)
    type_map: dict[int, int] = config["_type_map"]
    known = [chemical_symbols[z] for z, _ in sorted(type_map.items(), key=lambda item: item[1])]
    elements = keep_elements(known, options.elements, _model_name(source))
    types = [known.index(symbol) for symbol in elements]
    import sevenn

    layers = int(config["num_convolution_layer"])
    return Adapted(
        identity=ModelIdentity(
            family="sevennet",
            name=_model_name(source),
            source_sha256=file_sha256(checkpoint.checkpoint_path),
            license=_license(source),
            citation=CITATION,
        ),
        elements=elements,
        cutoff=float(config["cutoff"]),
        message_passing_layers=layers,
        parallel="exchange",
        energy_frame=_energy_frame(source, modal),
        inputs=inputs,
        inversion_symmetric=bool(config["is_parity"]),
        energy_model=lambda dtype: _energy_model(checkpoint, types, dtype, modal, options),
        original=Original(
            package=f"sevenn {sevenn.__version__}",
            float64=_original(checkpoint, torch.float64, modal),
            float32=_original(checkpoint, torch.float32, modal),
            calculator=lambda dtype, device, accelerator: _calculator(checkpoint, dtype, device, accelerator, modal),
            accelerators=("cueq", "flash", "oeq"),
        ),
        script=script,
        small_memory_model=None if options.fuse else lambda dtype: _chunked(checkpoint, types, dtype, modal),
    )


def _energy_model(
    checkpoint: Any, types: list[int], dtype: torch.dtype, modal: str | None, options: ExportOptions
) -> nn.Module:
    """The energy model of some of SevenNet's type indices, which are then numbered from 0."""
    model = _build(checkpoint, dtype, compiled=not options.fuse)
    _keep_types(model.rescale_atomic_energy, types, len(checkpoint.config["_type_map"]))
    if not options.fuse:
        return SevenNetEnergy(model, types, modal)
    cutoff = float(checkpoint.config["cutoff"])
    try:
        modal_index = model.modal_map[modal] if modal else 0
        return FusedSevenNetEnergy(
            model, types, dtype, cutoff, modal_index, tabulate=options.tabulate(dtype == torch.float32)
        )
    except NotFusible as reason:
        raise MLIPError(f"{reason}. This model has no fused form; export its own layers: add --no-fuse") from reason


def _chunked(checkpoint: Any, types: list[int], dtype: torch.dtype, modal: str | None) -> nn.Module:
    model: Any = _energy_model(checkpoint, types, dtype, modal, ExportOptions(fuse=False))
    return ChunkedSevenNet(model)


def _keep_types(rescale: Any, types: list[int], n_types: int) -> None:
    """Rows of the energy's scale and shift, whose last dimension is the element unless they are the same for all."""
    for name in ("scale", "shift"):
        values = getattr(rescale, name).detach()
        if type(rescale).__name__ != "Rescale" and values.shape[-1] == n_types:
            setattr(rescale, name, nn.Parameter(values[..., types], requires_grad=False))


def _load(source: str, trust: bool) -> Any:
    try:
        from sevenn.util import get_available_pretrained_models, load_checkpoint
    except ImportError as error:
        raise MLIPError("the SevenNet adapter needs the package sevenn. Type: pip install sevenn") from error
    if not Path(source).is_file() and ("/" in source or source.endswith((".pth", ".pt"))):
        raise MLIPError(f"'{source}': no such checkpoint file")
    if Path(source).is_file():
        checkpoints.load_checkpoint(Path(source), trust)  # SevenNet's own loader, below, runs whatever a file carries
    try:
        with quiet():
            checkpoint = load_checkpoint(source)
            if not checkpoint.config:
                raise KeyError("config")
    except ValueError as error:
        known = ", ".join(get_available_pretrained_models())
        raise MLIPError(f"'{source}' is neither a file nor a SevenNet model. Known models: {known}") from error
    except OSError as error:  # what a download raises, too
        reason = f"{type(error).__name__}: {error}"
        if _named(source) is None:
            raise MLIPError(f"'{source}' could not be read as a SevenNet checkpoint ({reason})") from error
        raise MLIPError(
            f"'{source}' could not be downloaded ({reason}). On a machine with a connection download the address that "
            "is named there, copy the file here and give it in place of the name"
        ) from error
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise MLIPError(f"'{source}' could not be read as a SevenNet checkpoint ({reason})") from error
    return checkpoint


def _modality(config: dict[str, Any], source: str, modal: str | None) -> tuple[list[Input], str | None]:
    choices = sorted(config.get("_modal_map") or {}) if config.get("use_modality") else []
    if not choices:
        if modal is not None:
            raise MLIPError(f"--modal {modal}: {source} has no modalities. Leave --modal out")
        return [], None
    if modal is None or modal not in choices:
        found = "no --modal was given" if modal is None else f"--modal {modal} is not one of them"
        several = f"{source} has several modalities ({', '.join(choices)})"
        raise MLIPError(f"{several} and {found}. Add: --modal {choices[0]}")
    return [Input(name="modal", choices=choices, value=modal)], modal


def _model_name(source: str) -> str:
    return Path(source).stem if Path(source).is_file() else source.lower()


def _frame(functional: str, hubbard_u: str) -> EnergyFrame:
    return EnergyFrame(functional=functional, hubbard_u=hubbard_u, corrections="none", dispersion="none")


_MPTRJ = _frame("PBE (MPtrj)", "MP2020 values")
_SALEX = _frame("PBE (MPtrj, sAlex)", "MP2020 values")
_OMAT = _frame("PBE (OMat24)", "OMat24 values")
PUBLISHED_FRAMES: dict[str, dict[str | None, EnergyFrame]] = {
    "7net-0": {None: _MPTRJ},
    "7net-l3i5": {None: _MPTRJ},
    "7net-mf-0": {"PBE": _MPTRJ},
    "7net-mf-ompa": {"mpa": _SALEX, "omat24": _OMAT},
    "7net-omat": {None: _OMAT},
    "7net-omni": {
        "mpa": _SALEX,
        "omat24": _OMAT,
        "matpes_pbe": _frame("PBE (MatPES)", "none"),
        "matpes_r2scan": _frame("r2SCAN (MatPES)", "none"),
    },
}
"""By the start of a name and by modality; docs/families.md has the sources. Of others nothing is said here."""


def _named(source: str) -> str | None:
    """The key of PUBLISHED_FRAMES for the name of a published checkpoint; None for a file."""
    if Path(source).is_file():
        return None
    name = source.lower().replace("sevennet-", "7net-")
    return max((key for key in PUBLISHED_FRAMES if name.startswith(key)), key=len, default=None)


def _energy_frame(source: str, modal: str | None) -> EnergyFrame:
    """What is published about the training data of a checkpoint; nothing is known of a user's file."""
    published = PUBLISHED_FRAMES.get(_named(source) or "", {})
    return published.get(modal, EnergyFrame.unknown(modal or "unknown"))


def _license(source: str) -> str:
    """Of the weights: those in the package are under its licence, those that it downloads do not say theirs there."""
    return "MIT" if _named(source) in ("7net-0", "7net-l3i5", "7net-mf-0") else "unknown"


@contextlib.contextmanager
def interpreted() -> Iterator[None]:
    """While SevenNet builds a model: e3nn's generated code stays Python. TorchScript takes several seconds to compile
    it, and gives the same numbers."""
    import e3nn

    options = e3nn.get_optimization_defaults()
    e3nn.set_optimization_defaults(jit_script_fx=False)
    try:
        yield
    finally:
        e3nn.set_optimization_defaults(**options)


def _build(checkpoint: Any, dtype: torch.dtype, compiled: bool = False) -> Any:
    """SevenNet's own model in `dtype`. It is built in float32, as its checkpoints are, and then converted:
    its loader compares constants of old checkpoints with new ones and refuses to do so between types.

    Args:
        compiled: for a file that has e3nn's tensor products.
    """
    with default_dtype(torch.float32), quiet(), contextlib.nullcontext() if compiled else interpreted():
        model = checkpoint.build_model().to(dtype)
    _cast_one_hot(model, dtype)
    model.set_is_batch_data(False)
    model.eval_type_map = False
    return model.eval()


def _cast_one_hot(model: Any, dtype: torch.dtype) -> None:
    """Put OneHot in place of SevenNet's layers."""
    for name, module in list(model._modules.items()):
        if type(module).__name__ == "OnehotEmbedding":
            model._modules[name] = OneHot(module, dtype)


def _original(checkpoint: Any, dtype: torch.dtype, modal: str | None) -> Callable[[Atoms], Result]:
    """SevenNet's own model, graph and output code, in `dtype`.

    Its calculator rounds every input to float32 and its one-hot layers return float32, so the graph is handed to
    the model here and the one-hot layers are cast; the layers, the force output and the unit of every result are
    SevenNet's.
    """
    calculator: Any = None

    def evaluate(atoms: Atoms) -> Result:
        nonlocal calculator
        from sevenn.calculator import SevenNetCalculator

        with quiet():
            if calculator is None:
                with interpreted():
                    model = checkpoint.build_model().to(dtype)
                _cast_one_hot(model, dtype)
                calculator = SevenNetCalculator(model, file_type="model_instance", device="cpu", modal=modal)
            return _evaluate(calculator, atoms, dtype)

    return evaluate


def _calculator(checkpoint: Any, dtype: str, device: str, accelerator: str | None, modal: str | None) -> Any:
    """SevenNet's own, which computes in float32."""
    from sevenn.calculator import SevenNetCalculator

    if dtype != "float32":
        raise MLIPError(f"SevenNet's calculator computes in float32, the artifact in {dtype}. Export it in float32")
    model = checkpoint.build_model(**({f"enable_{accelerator}": True} if accelerator else {}))
    return SevenNetCalculator(model, file_type="model_instance", device=device, modal=modal)


def _evaluate(calculator: Any, atoms: Atoms, dtype: torch.dtype) -> Result:
    from sevenn.atom_graph_data import AtomGraphData
    from sevenn.train.dataload import unlabeled_atoms_to_graph

    graph = unlabeled_atoms_to_graph(atoms, calculator.cutoff)
    data = AtomGraphData(
        **{
            key: torch.as_tensor(value, dtype=dtype if np.asarray(value).dtype.kind == "f" else None)
            for key, value in graph.items()
            if key != "data_info"
        }
    )
    if calculator.modal:
        data["data_modality"] = calculator.modal
    output = calculator.model(data)
    energies = output["atomic_energy"].detach().numpy().astype(float).reshape(-1)
    if graph["edge_index"].shape[1] == 0:
        # Without an edge SevenNet returns no force at all; by symmetry it is zero.
        no_forces = np.zeros((len(atoms), 3))
        return Result(energy=float(energies.sum()), atomic_energies=energies, forces=no_forces, stress=None)
    results = calculator.output_to_results(output)
    return Result(
        energy=float(energies.sum()),
        atomic_energies=energies,
        forces=results["forces"].astype(float),
        stress=results["stress"].astype(float) if atoms.pbc.all() else None,
    )

"""Adapter for MatGL (T. W. Ko et al. 2025): package `matgl`, TensorNet potentials that it has saved.

The layers are in model.py. A saved model is a folder of three files: `model.json` and `model.pt` say the classes, their
versions and their arguments, `state.pt` has the weights. MatGL counts a class's version up when its weights no longer
mean the same. It loads weights of another version with a warning and computes wrong energies; here they are refused.
"""

import contextlib
import copy
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ase import Atoms
from ase.units import GPa
from torch import Tensor, nn

from mlip_deploy.artifact.contract import EnergyFrame, ModelIdentity
from mlip_deploy.artifact.fixtures import Original
from mlip_deploy.artifact.reader import file_sha256
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.cells import closed_cell
from mlip_deploy.exporters.checkpoints import load_checkpoint
from mlip_deploy.exporters.families.matgl.model import TensorNetEnergy
from mlip_deploy.exporters.families.registry import FAMILIES, ExportOptions, keep_elements
from mlip_deploy.exporters.interface import Adapted
from mlip_deploy.exporters.settings import default_dtype, no_log, quiet
from mlip_deploy.result import Result, tensor_to_voigt

CITATION = (
    "Ko, T. W.; et al. Materials Graph Library (MatGL), an open-source graph deep learning library for materials "
    "science and chemistry. npj Comput. Mater. 2025, 11, 253. doi:10.1038/s41524-025-01742-y; Simeon, G.; "
    "De Fabritiis, G. TensorNet. NeurIPS 2023. arXiv:2306.06482"
)
LICENSE = "BSD-3-Clause (code), not stated (weights)"
FILES = ("model.json", "model.pt", "state.pt")
ORGANISATION = "materialyze"
"""where MatGL looks for names on the Hugging Face hub"""
VERSIONS = {"TensorNet": 2, "Potential": 3}
"""of MatGL's classes whose layers are known here"""
OTHER_ARCHITECTURES = {
    "M3GNet": "its sums over angles are not known here",
    "CHGNet": "MatGL's version of it is not known here; the family chgnet exports CHGNet's own models",
    "QET": "its charges are equilibrated over all atoms",
    "SO3Net": "its layers are not known here",
    "MEGNet": "it predicts properties, and no forces",
}


@dataclass(frozen=True)
class Published:
    """A published model."""

    dataset: str
    """by which the file says what it was trained on"""
    functional: str


PUBLISHED = {
    f"TensorNet-PES-MatPES-{functional}-2025.2{size}": Published(f"MatPES-{functional}-2025.2", functional)
    for functional in ("PBE", "r2SCAN")
    for size in ("", "-m")
}


def adapt(source: str, options: ExportOptions) -> Adapted:
    """A published or stored TensorNet potential as an Adapted model.

    Args:
        source: a name of PUBLISHED, or a folder that MatGL has saved.
        options: `fuse` False takes torch's operators alone; `radial`, `elements`, `trust_checkpoint`.

    Raises:
        MLIPError: for an unknown source, a folder that is no potential of MatGL's TensorNet or one of another version,
            settings that are not known, elements that the model lacks, or a package that matgl lacks.
    """
    try:
        with quiet():
            import matgl.ext.ase
            import matgl.models  # noqa: F401
    except ImportError as error:
        raise MLIPError(f"matgl cannot be imported ({error}). Type: {FAMILIES['matgl'].install}") from error
    files, name = _locate(source)
    published = PUBLISHED.get(name) if not Path(source).is_dir() else None
    potential = _load(files, source, published, options.trust_checkpoint)
    model = potential.model
    known = list(model.element_types)
    elements = keep_elements(known, options.elements, name)
    species = [known.index(symbol) for symbol in elements]

    def energy_model(dtype: torch.dtype) -> nn.Module:
        in_float64 = copy.deepcopy(model).double() if options.tabulate(dtype == torch.float32) else None
        scale, shifts = float(potential.data_std), _shifts(potential)[species]
        return TensorNetEnergy(copy.deepcopy(model).to(dtype), in_float64, species, scale, shifts, options.fuse)

    return Adapted(
        identity=ModelIdentity(
            family="matgl",
            name=name,
            source_sha256=_digest(files),
            license="unknown" if published is None else LICENSE,
            citation=CITATION,
        ),
        elements=elements,
        cutoff=float(model.cutoff),
        message_passing_layers=len(model.layers) + 1,  # the embedding looks at neighbours, too
        parallel="exchange",
        energy_frame=EnergyFrame.unknown()
        if published is None
        else EnergyFrame(
            functional=f"{published.functional} (MatPES)", hubbard_u="none", corrections="none", dispersion="none"
        ),
        inputs=[],
        # A product of two tensors from one side alone mixes vectors and pseudovectors.
        inversion_symmetric=model.equivariance_invariance_group == "O(3)",
        energy_model=energy_model,
        original=Original(
            package=f"matgl {FAMILIES['matgl'].version()}",
            float64=_original(potential, torch.float64),
            float32=_original(potential, torch.float32),
            calculator=lambda dtype, device, accelerator: _calculator(potential, dtype, device),
        ),
    )


def _locate(source: str) -> tuple[dict[str, Path], str]:
    """(files by their names, model's name) of a source; downloads a named model to where MatGL keeps it."""
    folder = Path(source)
    if folder.is_dir():
        absent = [file for file in FILES if not (folder / file).is_file()]
        if absent:
            raise MLIPError(f"'{source}' is no model that MatGL has saved: it has no {', '.join(absent)}")
        return {file: folder / file for file in FILES}, folder.resolve().name
    name = source.removeprefix(f"{ORGANISATION}/")
    if name not in PUBLISHED:
        kind = "expected the folder, not a file of it" if folder.is_file() else "neither a folder nor a model's name"
        raise MLIPError(f"'{source}': {kind}. Known models: {', '.join(PUBLISHED)}")
    return _download(name), name


def _download(name: str) -> dict[str, Path]:
    from huggingface_hub import hf_hub_download
    from matgl.config import MATGL_CACHE

    try:
        with quiet():
            return {
                file: Path(hf_hub_download(f"{ORGANISATION}/{name}", file, cache_dir=str(MATGL_CACHE)))
                for file in FILES
            }
    except Exception as error:
        raise MLIPError(
            f"'{name}' could not be downloaded ({type(error).__name__}: {error}). On a machine with a connection type: "
            f"python -c \"import matgl; matgl.load_model('{name}')\", and copy models--{ORGANISATION}--{name} from "
            f"~/.cache/matgl to {MATGL_CACHE}"
        ) from error


def _digest(files: dict[str, Path]) -> str:
    """SHA-256 of the three files."""
    digest = hashlib.sha256()
    for name, path in files.items():
        digest.update(f"{name} {file_sha256(path)}\n".encode())
    return digest.hexdigest()


def _load(files: dict[str, Path], source: str, published: Published | None, trust: bool) -> Any:
    """MatGL's own potential, in float32.

    It is not loaded by MatGL, which warns of another version, and takes layers for GPUs alone where it can.
    """
    from matgl.apps.pes import Potential
    from matgl.models import TensorNet

    try:
        described = json.loads(files["model.json"].read_text())
        metadata = described.get("metadata") or {}
        outer = {"@class": described["@class"], "@model_version": described["@model_version"]}
        dataset = metadata.get("dataset")
    except (ValueError, KeyError, AttributeError) as error:
        raise MLIPError(f"'{source}': model.json is not MatGL's ({type(error).__name__}: {error})") from error
    if outer["@class"] != "Potential":
        raise MLIPError(
            f"'{source}' holds a bare {outer['@class']}, expected a potential. Type in Python: "
            "from matgl.apps.pes import Potential; Potential(model).save('FOLDER')"
        )
    arguments = load_checkpoint(files["model.pt"], trust)
    inner = arguments.get("model") if isinstance(arguments, Mapping) else None
    if not isinstance(arguments, Mapping) or not isinstance(inner, Mapping) or "init_args" not in inner:
        raise MLIPError(f"'{source}': model.pt does not hold the arguments of a potential")
    kind = inner.get("@class")
    if kind != "TensorNet":
        reason = OTHER_ARCHITECTURES.get(str(kind), "its layers are not known here")
        raise MLIPError(f"'{source}' is a {kind}: {reason}. TensorNet is MatGL's architecture that can be exported")
    for part, cls in ((inner, TensorNet), (outer, Potential)):
        _check_version(part, cls, source)
    settings = dict(inner["init_args"])
    _check_settings(settings, arguments, source)
    if published is not None and dataset != published.dataset:
        raise MLIPError(f"'{source}' says that its data are {dataset}, expected {published.dataset}")
    state: Any = load_checkpoint(files["state.pt"], trust)
    try:
        with quiet(), no_log(), default_dtype(torch.float32):
            model = TensorNet(**{**settings, "use_warp": False})
            potential = Potential(**{**arguments, "model": model, "compile_model": False})
            missing, unexpected = potential.load_state_dict(state, strict=False)
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise MLIPError(f"'{source}': its weights do not fit its settings ({error})") from error
    # Constants follow from the settings, and files lack some; `onehot` is one that earlier versions kept.
    weights = {key for key, _ in potential.named_parameters()}
    wrong = [key for key in missing if key in weights] + [key for key in unexpected if not key.endswith(".onehot")]
    if wrong:
        raise MLIPError(f"'{source}': its weights do not fit its settings (missing or unknown: {', '.join(wrong)})")
    _check_numbers(potential, source)
    return potential.eval().requires_grad_(False)


def _check_version(part: Mapping[str, Any], cls: type, source: str) -> None:
    """Layers here, the installed package and the file have one version of a class.

    Raises:
        MLIPError: names the three.
    """
    name, installed = cls.__name__, getattr(cls, "__version__", 0)
    expected, found = VERSIONS[name], part.get("@model_version", 0)
    if installed != expected:
        raise MLIPError(
            f"matgl {FAMILIES['matgl'].version()} has version {installed} of {name}, expected {expected}. Type: "
            "pip install matgl==4.1.2"
        )
    if found != expected:
        raise MLIPError(
            f"'{source}' was saved with version {found} of MatGL's {name}, the installed matgl "
            f"{FAMILIES['matgl'].version()} has version {expected}. It would load these weights with a warning and "
            f"compute wrong energies. Take weights of version {expected}: {', '.join(PUBLISHED)}, or train anew"
        )


def _check_settings(settings: Mapping[str, Any], arguments: Mapping[str, Any], source: str) -> None:
    """Settings that change what is computed.

    Raises:
        MLIPError: names the first that is not known.
    """
    if settings.get("is_intensive", True):
        raise MLIPError(
            f"'{source}' predicts a property of the whole system (is_intensive=True), and no energies of atoms"
        )
    if settings.get("include_state", False):
        raise MLIPError(f"'{source}' has attributes of the state (include_state=True), which an engine does not have")
    basis = settings.get("rbf_type", "Gaussian")
    if basis not in ("Gaussian", "SphericalBessel"):
        raise MLIPError(f"'{source}' has the radial basis {basis}; Gaussian and SphericalBessel can be exported")
    if basis == "SphericalBessel" and not settings.get("use_smooth", False):
        raise MLIPError(f"'{source}' has spherical Bessel functions with use_smooth=False; only True can be exported")
    if settings.get("ntargets", 1) != 1:
        raise MLIPError(f"'{source}' has {settings['ntargets']} targets, expected 1, the energy")
    for flag, what in (
        ("calc_repuls", "a ZBL repulsion, which MatGL's TensorNet cannot run: it does not keep distances"),
        ("calc_charge", "charges, which TensorNet does not have"),
        ("calc_magmom", "magnetic moments, which TensorNet does not have"),
    ):
        if arguments.get(flag, False):
            raise MLIPError(f"'{source}' asks for {what}. Save the potential anew with {flag}=False")


def _check_numbers(potential: Any, source: str) -> None:
    if potential.data_mean.numel() != 1 or potential.data_std.numel() != 1 or float(potential.data_mean) != 0.0:
        raise MLIPError(
            f"'{source}' has data_mean={potential.data_mean.tolist()} and data_std={potential.data_std.tolist()}, "
            "expected 0 and one number: MatGL adds the mean once to a structure of any size, no atom has a share of it"
        )
    references = potential.element_refs
    expected = [len(potential.model.element_types)]
    if references is not None and list(references.property_offset.shape) != expected:
        raise MLIPError(
            f"'{source}' has element_refs {list(references.property_offset.shape)}, expected one for each of its "
            f"elements, {expected}"
        )


def _shifts(potential: Any) -> Tensor:
    """Reference energy of each of the model's elements, float64 eV."""
    if potential.element_refs is None:
        return torch.zeros(len(potential.model.element_types), dtype=torch.float64)
    offsets: Tensor = potential.element_refs.property_offset
    return offsets.detach().double()


def _calculator(potential: Any, dtype: str, device: str) -> Any:
    """MatGL's own, whose graph has positions in float32."""
    from matgl.ext.ase import PESCalculator

    if dtype != "float32":
        raise MLIPError(f"MatGL's calculator computes in float32, the artifact in {dtype}. Export it in float32")
    with no_log():  # its stress is in GPa unless it is told, and it says so
        return PESCalculator(copy.deepcopy(potential).to(device), stress_unit="eV/A3", use_voigt=True)


def _original(potential: Any, dtype: torch.dtype) -> Callable[[Atoms], Result]:
    """MatGL's own graph, layers and derivatives in `dtype`.

    The energies of the elements are added in float64: the noise of the original in float32 is then that of its layers.
    """
    own: Any = None
    energies: list[Tensor] = []
    shifts, element_types = _shifts(potential), potential.model.element_types

    def evaluate(atoms: Atoms) -> Result:
        nonlocal own
        if own is None:
            own = copy.deepcopy(potential).to(dtype)
            own.element_refs = None
            # MatGL returns their sum alone.
            own.model.final_layer.register_forward_hook(lambda module, inputs, output: energies.append(output.detach()))
        with quiet(), _converter_in(dtype):
            graph, lattice = _graph(atoms, element_types, float(own.model.cutoff))
            total, forces, stress, _ = own(graph, lattice)
        of_elements = shifts[graph.node_type]
        atomic_energies = float(own.data_std) * energies.pop().double().squeeze(1) + of_elements
        tensor = stress.detach().double().numpy() * GPa
        return Result(
            energy=float(total.detach().double() + of_elements.sum()),
            atomic_energies=atomic_energies.numpy(),
            forces=forces.detach().double().numpy(),
            stress=tensor_to_voigt(tensor) if atoms.pbc.all() else None,
        )

    return evaluate


def _graph(atoms: Atoms, element_types: tuple[str, ...], cutoff: float) -> tuple[Any, Tensor]:
    """MatGL's own graph, and the cell."""
    from matgl.ext.ase import Atoms2Graph

    closed = Atoms(atoms.numbers, atoms.positions, cell=closed_cell(atoms, cutoff), pbc=True)
    graph, lattice, _ = Atoms2Graph(element_types, cutoff).get_graph(closed)
    return graph, lattice


@contextlib.contextmanager
def _converter_in(dtype: torch.dtype) -> Iterator[None]:
    """MatGL's graphs have positions and cells in `dtype`."""
    import matgl

    previous = matgl.float_th
    matgl.float_th = dtype
    try:
        yield
    finally:
        matgl.float_th = previous

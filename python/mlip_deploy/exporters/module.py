"""Bring your own: any nn.Module behind the model interface becomes an artifact.

The fixtures come from the module itself, evaluated eagerly, over ASE's neighbour list: what `mlip check` then
compares is the module as Python runs it against the artifact in each engine.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import re
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from torch import Tensor, nn

from mlip_deploy.artifact.contract import (
    BackendKind,
    Contract,
    Dtype,
    EnergyFrame,
    ModelIdentity,
    Parallel,
    Positions,
    Setting,
)
from mlip_deploy.artifact.fixtures import Original, example_settings, structures
from mlip_deploy.artifact.reader import SUFFIXES
from mlip_deploy.artifact.tolerances import FLOAT64
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.branches import branches_on_counts
from mlip_deploy.exporters.export import check_device
from mlip_deploy.exporters.interface import Adapted, EdgeGradientModelWithFeatures, gradients
from mlip_deploy.exporters.parts import Exchange, cut, energies_of_parts, enlarged, graph
from mlip_deploy.exporters.settings import quiet, torchs_own_functions
from mlip_deploy.exporters.write import write_artifact
from mlip_deploy.files import require_file
from mlip_deploy.operators import load_operators
from mlip_deploy.progress import Progress, silent
from mlip_deploy.result import Result, stress_from_virial


def export_module(
    module: nn.Module,
    output: str | Path,
    *,
    elements: Sequence[str],
    cutoff: float,
    name: str,
    message_passing_layers: int = 0,
    parallel: Parallel = "local",
    dtype: Dtype = "float32",
    energy_frame: EnergyFrame | None = None,
    inversion_symmetric: bool | None = None,
    settings: Sequence[Setting] = (),
    positions: Positions | None = None,
    atomic_energies_meaningful: bool = True,
    license: str = "unknown",
    citation: str = "none",
    backend: BackendKind = "torchscript",
    device: str = "cpu",
    progress: Progress = silent,
) -> Contract:
    """Write a module of your own as an artifact.

    Parameters
    ----------
    module
        `forward(node_types, n_owned, edge_index, edge_vectors) -> atomic energies [n_owned]` in eV, with the
        arguments of `EdgeGradientModel.forward` (vectors in Å), in code that the back end compiles. It computes in
        the type of `edge_vectors`: its parameters and floating-point buffers are converted. With a method
        `energies_and_features`, of the same arguments and without positions, that returns (energies, features
        [n_owned, n_features]) the file can give grades (docs/trust.md).
    output
        File to write, `*.mlip.pt`, or `*.mlip.pt2` for aotinductor.
    elements
        Chemical symbols in the order of the type index.
    cutoff
        Å; every pair nearer than this is an edge.
    name
        Name of the model, for tables and messages.
    message_passing_layers
        Number of layers; 0 when an atomic energy depends on the atom's own edges alone.
    parallel
        "local"; "exchange" for a module that calls `torch.ops.mlip.ghost_gather(x, n_nodes)` before every
        message-passing layer; "halo" for one that needs ghosts with edges of their own. With any of them a module may
        call `torch.ops.mlip.sum_over_atoms(x [n_owned, ...])`, a sum over the atoms of all ranks.
    dtype
        Precision of the artifact. The fixtures contain float64 results and the module's noise in float32.
    energy_frame
        Functional, Hubbard U, corrections and dispersion of the training energies; by default "unknown".
    inversion_symmetric
        Whether mirror images have the same energy by construction, as in a model of distances and angles.
        `mlip validate` then fails a file in which they differ. None means not known and excuses small differences.
    settings
        Values of the whole system that an engine gives at run time, such as a total charge. `forward` then takes them
        as its last argument: [n_settings] in this order and in the type of `edge_vectors`, a choice by its index.
    positions
        "periodic" or "any" for a module that sees positions beside its edges, as sums over k-vectors do. `forward`
        then has two arguments more, before settings: positions [n_owned, 3] of owned atoms in any periodic image, and
        cell [3, 3] with the cell vectors as rows, both in float64 and Å. With "periodic" engines refuse cells that are
        not periodic in three directions; with "any" the rows of open directions are zero. Energies must not change
        where an atom moves by a cell vector, or all atoms move together.
    atomic_energies_meaningful
        False for a module in which one atom's energy is an arbitrary share of the sum: engines then refuse to give it.
    license
        Licence of the model.
    citation
        Reference to cite with the model.
    backend
        "torchscript", or "aotinductor" for code compiled for this torch and processor.
    device
        As of `export`.
    progress
        Called with a line of text before each piece of work.

    Returns
    -------
    Contract
        The contract of the file that was written.

    Raises
    ------
    MLIPError
        For wrong shapes or types, energies without a gradient, atomic energies that depend on the size of the system
        or on how it is divided among ranks, code that the back end cannot compile, with the line of the module's file;
        for a file that cannot be written.
    """
    output = Path(output)
    check_device(device, backend)
    suffix = SUFFIXES[backend]
    if not output.name.endswith(suffix):
        raise MLIPError(f"{output}: file names end in {suffix} here. Type: {output.name.split('.')[0]}{suffix}")
    require_file(output)
    if parallel == "local" and message_passing_layers > 1:
        raise MLIPError(
            f"{name}: {message_passing_layers} message-passing layers cannot be parallel='local'. Use 'exchange' with "
            "torch.ops.mlip.ghost_gather before every layer, or 'halo'"
        )
    load_operators()
    module = module.eval()
    elements = list(elements)
    _check_names(settings)
    inputs = _Inputs(elements, cutoff, tuple(settings), positions)
    for label, atoms in structures(elements, positions):
        _examine(module, label, atoms, inputs)
    _examine_parts(module, inputs, parallel, message_passing_layers)
    if backend == "torchscript":
        _examine_script(module)

    adapted = Adapted(
        identity=ModelIdentity(
            family="custom", name=name, source_sha256=_fingerprint(module), license=license, citation=citation
        ),
        elements=elements,
        cutoff=cutoff,
        message_passing_layers=message_passing_layers,
        parallel=parallel,
        energy_frame=energy_frame or EnergyFrame.unknown(),
        inversion_symmetric=inversion_symmetric,
        inputs=[],
        energy_model=lambda kind: _in_type(module, kind),
        original=Original(
            package=f"{type(module).__qualname__}, eager, torch {torch.__version__}",
            float64=_evaluator(_in_type(module, torch.float64), torch.float64, inputs),
            float32=_evaluator(_in_type(module, torch.float32), torch.float32, inputs),
        ),
        settings=tuple(settings),
        positions=positions,
        atomic_energies_meaningful=atomic_energies_meaningful,
    )
    return write_artifact(adapted, output, dtype, progress, backend, device)


def _in_type(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    return copy.deepcopy(module).to(dtype)


FEATURES = "energies_and_features"
"""A module's optional method."""

OPTIONS = ("path", "topology", "atoms", "periodic", "device", "threads", "embed", "self_test", "grade", "precision")
"""of the engines' Python classes, which take settings by their names, too"""


def _check_names(settings: Sequence[Setting]) -> None:
    for setting in settings:
        if not setting.name.isidentifier() or setting.name in OPTIONS:
            raise MLIPError(
                f"setting '{setting.name}': a name is a word of letters, digits and underscores, and none of "
                f"{', '.join(OPTIONS)}"
            )


@dataclass(frozen=True)
class _Inputs:
    """What a module's arguments are made from."""

    elements: list[str]
    cutoff: float
    settings: tuple[Setting, ...]
    positions: Positions | None

    def graph(self, atoms: Atoms, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Node types, edge index and edge vectors."""
        return graph(atoms, self.elements, self.cutoff, dtype)

    def others(self, atoms: Atoms, dtype: torch.dtype) -> dict[str, Tensor]:
        """The arguments after those, in their order; `info` of the atoms has the values of settings."""
        found: dict[str, Tensor] = {}
        if self.positions:
            open_cell = atoms.cell.array * atoms.pbc[:, None]
            found = {"positions": torch.tensor(atoms.positions), "cell": torch.tensor(open_cell)}
        if self.settings:
            values = [setting.number(atoms.info[setting.name]) for setting in self.settings]
            found["settings"] = torch.tensor(values, dtype=dtype)
        return found


def _evaluator(module: nn.Module, dtype: torch.dtype, inputs: _Inputs) -> Callable[[Atoms], Result]:
    """Energies of the module and, by autograd, forces and stress: the sums of csrc/core/graph.h."""

    def evaluate(atoms: Atoms) -> Result:
        types, edges, vectors = inputs.graph(atoms, dtype)
        others = inputs.others(atoms, dtype)
        moved = [vectors, *(others[name] for name in others if name != "settings")]
        for value in moved:
            value.requires_grad_(True)
        energies = module(types, len(atoms), edges, vectors, *others.values())
        found = [torch.zeros_like(value) for value in moved]
        if energies.requires_grad:
            found = gradients(energies, moved)
        g, *gradients_of_positions = [gradient.double().numpy() for gradient in found]
        forces = np.zeros((len(atoms), 3))
        np.add.at(forces, edges[0].numpy(), g)
        np.subtract.at(forces, edges[1].numpy(), g)
        if gradients_of_positions:
            forces -= gradients_of_positions[0]
        virial = -sum(
            value.detach().double().numpy().T @ gradient.double().numpy()
            for value, gradient in zip(moved, found, strict=True)
        )
        values = energies.detach().double().numpy()
        return Result(
            energy=float(values.sum()),
            atomic_energies=values,
            forces=forces,
            stress=stress_from_virial(virial, atoms.get_volume()) if atoms.pbc.all() else None,
        )

    return evaluate


def _examine(module: nn.Module, label: str, atoms: Atoms, inputs: _Inputs) -> None:
    """Shape, type and gradient of the module's result on one structure."""
    atoms.info.update(example_settings(inputs.settings, 0))
    for dtype in (torch.float64, torch.float32):
        types, edges, vectors = inputs.graph(atoms, dtype)
        others = inputs.others(atoms, dtype)
        moved = {"edge_vectors": vectors} | {name: others[name] for name in others if name != "settings"}
        for value in moved.values():
            value.requires_grad_(True)
        energies = _call(_in_type(module, dtype), label, types, len(atoms), edges, vectors, **others)
        if hasattr(module, FEATURES) and not inputs.positions:
            _examine_features(_in_type(module, dtype), energies, types, edges, vectors, *others.values())
        if edges.shape[1] == 0:
            continue
        found: list[Tensor] = []
        if energies.requires_grad:
            found = gradients(energies, list(moved.values()))
        # Charges of equal atoms may all be zero.
        if not found or not (inputs.positions or found[0].any()):
            raise MLIPError(
                f"{_place(module)}: forces would be zero: the energies of '{label}' do not depend on edge_vectors. "
                "Compute them from edge_vectors with torch operations alone, without detach(), item(), numpy() or "
                "torch.no_grad()"
            )
        for name, gradient in zip(moved, found, strict=True):
            if not gradient.isfinite().all():
                raise MLIPError(
                    f"{_place(module)}: dE/d({name}) of '{label}' is not finite. The usual reason is a square root, "
                    "norm or division at zero: keep its argument away from zero, also in the branch not taken by "
                    "torch.where"
                )
    if inputs.positions:
        _examine_images(module, label, atoms, inputs)


def _examine_features(
    module: nn.Module, energies: Tensor, types: Tensor, edges: Tensor, vectors: Tensor, *settings: Tensor
) -> None:
    """The method gives forward's energies, and as many features of each owned atom as of any other."""
    n_owned = energies.shape[0]
    try:
        found = getattr(module, FEATURES)(types, n_owned, edges, vectors, *settings)
    except TypeError as error:
        raise MLIPError(f"{_place(module)}: {FEATURES} takes other arguments than forward ({error})") from error
    if not (isinstance(found, tuple) and len(found) == 2 and all(isinstance(one, Tensor) for one in found)):
        raise MLIPError(
            f"{_place(module)}: {FEATURES} returned a {type(found).__name__}, expected (energies, features)"
        )
    if not found[0].equal(energies):
        raise MLIPError(
            f"{_place(module)}: {FEATURES} gives other energies than forward. Let forward return the first of both"
        )
    shape, dtype = list(found[1].shape), found[1].dtype
    if len(shape) != 2 or shape[0] != n_owned or shape[1] < 1 or dtype != vectors.dtype:
        raise MLIPError(
            f"{_place(module)}: {FEATURES} gives features {shape} of {dtype}, expected [n_owned, n_features] = "
            f"[{n_owned}, ...] of {vectors.dtype}"
        )


MOVE = np.array([1.3, -2.1, 0.7])
"""Å, of all atoms together"""


def _examine_images(module: nn.Module, label: str, atoms: Atoms, inputs: _Inputs) -> None:
    """Engines keep atoms in whatever periodic image, and cells at whatever place: energies do not change."""
    module = _in_type(module, torch.float64)
    moved = atoms.copy()
    moved.positions += MOVE
    for axis in np.flatnonzero(atoms.pbc):
        moved.positions[axis::2] += (axis - 2) * atoms.cell.array[axis]
    found = []
    for one in (atoms, moved):
        types, edges, vectors = inputs.graph(one, torch.float64)
        others = inputs.others(one, torch.float64)
        found.append(_call(module, label, types, len(one), edges, vectors, **others).detach())
    here, there = found
    if (change := float((here - there).abs().max())) > FLOAT64.atomic_energies * max(1.0, float(here.abs().max())):
        raise MLIPError(
            f"{_place(module)}: energies of '{label}' change by {change:.2g} eV where atoms move by cell vectors, or "
            "all together. Use positions in structure factors alone, with k-vectors that are integer multiples of the "
            "reciprocal cell vectors (times 2 pi)"
        )


def _examine_parts(module: nn.Module, inputs: _Inputs, parallel: Parallel, message_passing_layers: int) -> None:
    """Atomic energies are the same in a small crystal, in a large one, and in parts of it with ghosts."""
    module = _in_type(module, torch.float64)

    def energies(atoms: Atoms, types: Tensor, n_owned: int, edges: Tensor, vectors: Tensor, owned: Tensor) -> Tensor:
        others = inputs.others(atoms, torch.float64)
        if "positions" in others:
            others["positions"] = others["positions"][owned]
        ghosts = len(types) - n_owned
        return _call(module, f"{n_owned} owned and {ghosts} ghost atoms", types, n_owned, edges, vectors, **others)

    crystal = dict(structures(inputs.elements))["sheared crystal"]
    crystal.info.update(example_settings(inputs.settings, 0))
    large = enlarged(crystal)
    types, edges, vectors = inputs.graph(crystal, torch.float64)
    with Exchange() as exchange:
        small = energies(crystal, types, len(crystal), edges, vectors, torch.arange(len(crystal)))
    small = small.detach().repeat(len(large) // len(crystal))
    types, edges, vectors = inputs.graph(large, torch.float64)
    whole, parts = energies_of_parts(
        partial(energies, large), types, edges, vectors, cut(large), parallel, message_passing_layers
    )
    limit = FLOAT64.atomic_energies * max(1.0, float(small.abs().max()))
    rule = (
        "An atomic energy depends on the atom's surroundings alone, not on sums, means, maxima or counts of all atoms"
    )
    # What a declared sum over all atoms does with the size of the system is the model's affair.
    if not exchange.summed and (change := float((whole - small).abs().max())) > limit:
        raise MLIPError(
            f"{_place(module)}: atomic energies depend on the size of the system: they change by {change:.2g} eV "
            f"between a crystal of {len(crystal)} atoms and the same crystal of {len(large)}. {rule}"
        )
    if (change := float((whole - parts).abs().max())) > limit:
        cure = {
            "local": "Messages beyond one cutoff need parallel='exchange' or 'halo'",
            "exchange": "Call torch.ops.mlip.ghost_gather on features of atoms before neighbours read them",
            "halo": "Say with message_passing_layers how many cutoffs away an atom is felt",
        }[parallel]
        raise MLIPError(
            f"{_place(module)}: atomic energies depend on how atoms are divided among ranks: they change by "
            f"{change:.2g} eV when a crystal of {len(large)} atoms is cut into parts with ghosts. {rule}. {cure}"
        )


def _call(
    module: nn.Module, label: str, types: Tensor, n_owned: int, edges: Tensor, vectors: Tensor, **others: Tensor
) -> Tensor:
    given = {"node_types": types, "edge_index": edges, "edge_vectors": vectors, **others}
    inputs = {name: value.clone() for name, value in given.items()}
    kept = module.state_dict()
    versions = {name: value._version for name, value in (inputs | kept).items()}
    before = {name: value.clone() for name, value in kept.items()} | given
    types, edges, vectors, *arguments = inputs.values()
    try:
        energies = module(types, n_owned, edges, vectors, *arguments)
    except Exception as error:
        place = _line_in_traceback(error) or _place(module)
        raise MLIPError(f"{place}: forward failed on '{label}': {type(error).__name__}: {error}") from error
    for name, value in (inputs | kept).items():
        # `detach` keeps the count of writings, `data` does not
        if value._version != versions[name] or not value.equal(before[name]):
            what = f"its argument {name}" if name in inputs else f"its own '{name}'"
            variable = name.rpartition(".")[2]
            raise MLIPError(
                f"{_place(module)}: forward writes into {what}, which the next step reads again. Write into a copy: "
                f"{variable} = {'' if name in inputs else 'self.'}{variable}.clone(), or use the form without an "
                "underscore at its end: x = x.mul(2) in place of x.mul_(2)"
            )
    sizes = f"node_types {list(types.shape)}, n_owned {n_owned}, {edges.shape[1]} edges"
    if not isinstance(energies, Tensor):
        raise MLIPError(
            f"{_place(module)}: forward returned {type(energies).__name__}, expected a tensor of atomic energies "
            f"[n_owned] (given {sizes})"
        )
    if list(energies.shape) != [n_owned]:
        raise MLIPError(
            f"{_place(module)}: forward returned shape {list(energies.shape)} for '{label}', expected atomic energies "
            f"[n_owned] = [{n_owned}] (given {sizes}). Sum over edges with torch.zeros(n_owned, ...).index_add(0, "
            "edge_index[0], ...)"
        )
    if energies.dtype != vectors.dtype:
        raise MLIPError(
            f"{_place(module)}: forward returned {energies.dtype} for edge vectors of {vectors.dtype}. Create tensors "
            "with dtype=edge_vectors.dtype, and keep constants in buffers"
        )
    if not energies.isfinite().all():
        raise MLIPError(f"{_place(module)}: an energy of '{label}' is not finite (given {sizes})")
    return energies


def _examine_script(module: nn.Module) -> None:
    try:
        with quiet(), torchs_own_functions():
            scripted = torch.jit.script(copy.deepcopy(module))
            if hasattr(module, FEATURES):
                torch.jit.script(EdgeGradientModelWithFeatures(copy.deepcopy(module)))
    except Exception as error:
        text = str(error)
        reason = re.split(r"\n\s*File \"|:\s*\n\s*File \"", text)[0].strip() or type(error).__name__
        ours = [(file, line) for file, line in re.findall(r'File "([^"]+)", line (\d+)', text) if not _is_library(file)]
        place = f"{ours[0][0]}:{ours[0][1]}" if ours else _place(module)
        raise MLIPError(
            f"{place}: TorchScript cannot compile this: {reason}. See docs/extending.md for what it takes"
        ) from error
    branches = branches_on_counts(scripted, _is_library)
    if branches:
        raise MLIPError(
            f"{branches[0]}: a branch on the number of atoms or edges: a large system is computed in another way than "
            "the small structures that prove the file. Compute the same for every size; a comparison of a count with "
            "0 is allowed"
        )


def _is_library(file: str) -> bool:
    return Path(file).is_relative_to(Path(torch.__file__).parent) or Path(file) == Path(__file__)


def _line_in_traceback(error: Exception) -> str | None:
    """The innermost line outside of torch and of this file."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_library(frame.filename)]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None


def _place(module: nn.Module) -> str:
    """Where the module's forward is defined."""
    try:
        code = type(module).forward.__code__
    except AttributeError:
        return type(module).__qualname__
    return f"{code.co_filename}:{code.co_firstlineno}"


def _fingerprint(module: nn.Module) -> str:
    """SHA-256 of the parameters and buffers and of the source text of the module's classes."""
    digest = hashlib.sha256()
    for kind in sorted({type(part) for part in module.modules()}, key=lambda kind: kind.__qualname__):
        try:
            digest.update(inspect.getsource(kind).encode())
        except (OSError, TypeError):
            digest.update(kind.__qualname__.encode())
    for key, value in sorted(module.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()

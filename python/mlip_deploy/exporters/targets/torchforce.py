"""`*.torchforce.pt`: a self-contained TorchScript module for `openmmtorch.TorchForce`, which needs nothing of ours.

TorchForce gives positions and box, in nm, and wants kJ/mol; the module finds the neighbours itself and calls no
custom operator. Elements are not part of what TorchForce gives: they are stored in the file, at export or later with
`torch.jit.load(file).set_atoms(symbols, particles)`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mlip_deploy import _core
from mlip_deploy.artifact.contract import Dtype
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.interface import TORCH_DTYPE, Adapted, EdgeGradientModel
from mlip_deploy.exporters.settings import default_dtype, quiet
from mlip_deploy.files import replacing
from mlip_deploy.operators import load_operators
from mlip_deploy.progress import Progress

SUFFIX = ".torchforce.pt"
RECORD = "mlip/torchforce.json"
KJ_PER_MOL: float = _core.EV_IN_KJ_PER_MOL
ANGSTROM_PER_NM = 10.0


def find_edges(positions: Tensor, cell: Tensor, periodic: bool, cutoff: float) -> tuple[Tensor, Tensor]:
    """All ordered pairs with |r_ij| < cutoff, through bins no thinner than the cutoff.

    A periodic cell may be triclinic and smaller than the cutoff: bins are then looked at once per image.

    Args:
        positions: float64 [n, 3]; need not be wrapped into the cell.
        cell: float64 [3, 3], rows are the cell vectors; not read unless `periodic`.
        cutoff: in the unit of `positions`.

    Returns:
        int64 [2, n_edges] centre i and neighbour j, and the shift [n_edges, 3] of each, in the unit of `positions`:
        r_ij = r_j - r_i + shift.
    """
    device = positions.device
    most_bins = 48  # per direction: a few atoms far apart must not make millions of empty bins
    if periodic:
        inverse = torch.linalg.inv(cell)
        heights = 1.0 / (inverse * inverse).sum(dim=0).sqrt()
        fractional = positions @ inverse
        home = torch.floor(fractional)
        fractional = fractional - home
    else:
        lowest = positions.min(dim=0)[0]
        heights = positions.max(dim=0)[0] - lowest + 1e-3 * cutoff
        fractional = (positions - lowest) / heights
        home = torch.zeros_like(positions)
    n_bins = torch.floor(heights / cutoff).clamp(1, most_bins).to(torch.int64)
    reach = torch.ceil(cutoff * n_bins / heights).to(torch.int64) if periodic else torch.ones_like(n_bins)
    bins = torch.minimum(torch.floor(fractional * n_bins).to(torch.int64), n_bins - 1)
    strides = torch.stack([n_bins[1] * n_bins[2], n_bins[2], torch.ones_like(n_bins[2])])

    # Atoms of one bin stand together in `order`, from `starts` on.
    flat = (bins * strides).sum(dim=1)
    order = torch.argsort(flat)
    counts = torch.bincount(flat, minlength=int(n_bins.prod()))
    starts = torch.cumsum(counts, 0) - counts

    steps = [torch.arange(-int(reach[k]), int(reach[k]) + 1, device=device) for k in range(3)]
    offsets = torch.cartesian_prod(steps[0], steps[1], steps[2])
    target = (bins.unsqueeze(1) + offsets.unsqueeze(0)).reshape(-1, 3)
    image = torch.div(target, n_bins, rounding_mode="floor")
    target_flat = ((target - image * n_bins) * strides).sum(dim=1)
    n_candidates = counts[target_flat]
    if not periodic:
        n_candidates = torch.where((image == 0).all(dim=1), n_candidates, torch.zeros_like(n_candidates))
    row = torch.arange(target.shape[0], device=device).repeat_interleave(n_candidates)
    within = torch.arange(row.shape[0], device=device) - (torch.cumsum(n_candidates, 0) - n_candidates)[row]
    centres = torch.div(row, offsets.shape[0], rounding_mode="floor")
    neighbours = order[starts[target_flat[row]] + within]
    shifts = image[row].to(positions.dtype) + home[centres] - home[neighbours]
    shifts = shifts @ cell if periodic else torch.zeros_like(shifts)

    vectors = positions[neighbours] - positions[centres] + shifts
    itself = (centres == neighbours) & (image[row] == 0).all(dim=1)
    kept = torch.nonzero(((vectors * vectors).sum(dim=1) < cutoff * cutoff) & ~itself).squeeze(1)
    return torch.stack([centres[kept], neighbours[kept]]), shifts[kept]


class _TorchForceModule(nn.Module):
    """What the two output forms share: the atoms, their types and the edges."""

    def __init__(self, model: nn.Module, elements: list[str], cutoff: float, dtype: torch.dtype):
        super().__init__()
        self.model = model
        self.elements: list[str] = elements
        self.cutoff = cutoff
        self.dtype = dtype
        self.kj_per_mol = KJ_PER_MOL
        self.angstrom_per_nm = ANGSTROM_PER_NM
        self.node_types: Tensor
        self.particles: Tensor
        self.register_buffer("node_types", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("particles", torch.zeros(0, dtype=torch.int64))

    @torch.jit.export
    def set_atoms(self, symbols: list[str], particles: list[int]) -> None:
        """Say what the particles are.

        Args:
            symbols: chemical symbol of each atom that the model sees.
            particles: which particle each of them is, counted from 0, each once; an empty list: all particles, in
                order.
        """
        seen: dict[int, int] = {}
        for k, particle in enumerate(particles):
            if particle < 0:
                raise ValueError(f"set_atoms: particle {particle} of atom {k} is negative. Count from 0")
            if particle in seen:
                raise ValueError(
                    f"set_atoms: atoms {seen[particle]} and {k} (counted from 0) are both particle {particle}. Name "
                    "each particle once"
                )
            seen[particle] = k
        if len(particles) > 0 and len(particles) != len(symbols):
            raise ValueError(f"set_atoms: {len(symbols)} symbols but {len(particles)} particles")
        types: list[int] = []
        for k, symbol in enumerate(symbols):
            if symbol not in self.elements:
                raise ValueError(f"set_atoms: atom {k} (counted from 0) is '{symbol}', not an element of the model")
            types.append(self.elements.index(symbol))
        self.node_types = torch.tensor(types, dtype=torch.int64, device=self.node_types.device)
        self.particles = torch.tensor(particles, dtype=torch.int64, device=self.node_types.device)

    def select(self, positions: Tensor) -> Tensor:
        """Å, float64 [n_atoms, 3] of the atoms that the model sees."""
        if self.node_types.shape[0] == 0:
            raise ValueError(
                "the file does not say what the particles are. Load it with torch.jit.load, call "
                "set_atoms(symbols, []) and save it, or export it with the elements"
            )
        selected = positions if self.particles.shape[0] == 0 else positions[self.particles]
        if selected.shape[0] != self.node_types.shape[0]:
            raise ValueError(f"the file is for {self.node_types.shape[0]} atoms, the System has {selected.shape[0]}")
        finite = torch.isfinite(selected).all(dim=1)
        if not bool(finite.all()):
            first = int(torch.nonzero(~finite)[0, 0])
            particle = first if self.particles.shape[0] == 0 else int(self.particles[first])
            raise ValueError(
                f"the position of particle {particle} (counted from 0) is not a finite number. The simulation has "
                "blown up: take a shorter time step, or minimise first"
            )
        return selected.to(torch.float64) * self.angstrom_per_nm

    def edges(self, positions: Tensor, box: Tensor | None) -> tuple[Tensor, Tensor]:
        """Edges and shifts in Å; without a box, as TorchForce calls a non-periodic force, no images."""
        if box is None:
            return find_edges(positions.detach(), torch.zeros_like(positions[:1]), False, self.cutoff)
        cell = box.detach().to(torch.float64) * self.angstrom_per_nm
        return find_edges(positions.detach(), cell, True, self.cutoff)


class EnergyAndForces(_TorchForceModule):
    """For `setOutputsForces(True)`: the faster form, and the one for large systems.

    Its `model` is the model interface: atomic energies and the gradient of each edge.
    """

    def forward(self, positions: Tensor, box: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """
        Args:
            positions: [n_particles, 3] nm.
            box: [3, 3] nm, rows are the box vectors; absent for a force without periodic boundary conditions.

        Returns:
            energy in kJ/mol (float64, summed in float64) and forces [n_particles, 3] in kJ/mol/nm, contiguous, in the
            type of `positions`.
        """
        selected = self.select(positions.detach())
        edge_index, shifts = self.edges(selected, box)
        centres, neighbours = edge_index[0], edge_index[1]
        vectors = (selected[neighbours] - selected[centres] + shifts).to(self.dtype)
        energies, gradient = self.model(self.node_types, self.node_types.shape[0], edge_index, vectors)
        scaled = gradient.to(torch.float64) * (self.kj_per_mol * self.angstrom_per_nm)
        forces = torch.zeros_like(selected).index_add(0, centres, scaled).index_add(0, neighbours, -scaled)
        if self.particles.shape[0] > 0:
            forces = torch.zeros_like(positions, dtype=torch.float64).index_add(0, self.particles, forces)
        energy = energies.to(torch.float64).sum() * self.kj_per_mol
        return energy, forces.to(positions.dtype).contiguous()


class Energy(_TorchForceModule):
    """For the default, `setOutputsForces(False)`: TorchForce differentiates the energy itself.

    Its `model` gives atomic energies alone.
    """

    def forward(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """As EnergyAndForces.forward, but the energy alone, differentiable with respect to `positions`."""
        selected = self.select(positions)
        edge_index, shifts = self.edges(selected, box)
        vectors = (selected[edge_index[1]] - selected[edge_index[0]] + shifts).to(self.dtype)
        energies = self.model(self.node_types, self.node_types.shape[0], edge_index, vectors)
        total: Tensor = energies.to(torch.float64).sum()
        return total * self.kj_per_mol


def write_torchforce(
    adapted: Adapted,
    output: Path,
    dtype: Dtype,
    progress: Progress,
    symbols: Sequence[str] | None = None,
    particles: Sequence[int] | None = None,
    forces: bool = True,
) -> None:
    """Write a model as a file for `openmmtorch.TorchForce`.

    Args:
        adapted: the model, from an export adapter; one that calls no custom operator but mlip::ghost_gather and
            mlip::sum_over_atoms.
        output: file, *.torchforce.pt; it appears under its name only when it is complete.
        symbols: chemical symbol of each atom; None leaves it to `set_atoms`.
        particles: which particles these are; None for all of the System's, in order.
        forces: return energy and forces, for `setOutputsForces(True)`; otherwise the energy alone.

    Raises:
        MLIPError: for a model that needs other custom operators, or an element that it does not know.
    """
    if adapted.settings:
        names = ", ".join(setting.name for setting in adapted.settings)
        raise MLIPError(
            f"{adapted.identity.name} has settings ({names}), which a TorchForce file has no place for. Use a file "
            "without --target torchforce, with MLIPForce"
        )
    if adapted.positions:
        raise MLIPError(
            f"{adapted.identity.name} takes positions and cell beside its edges, which a TorchForce file has no place "
            "for. Use a file without --target torchforce, with MLIPForce"
        )
    load_operators()
    progress(f"scripting the model in {dtype}")
    form = EnergyAndForces if forces else Energy
    with default_dtype(TORCH_DTYPE[dtype]), quiet():
        if not forces:
            model = adapted.energy_model(TORCH_DTYPE[dtype])
        elif adapted.small_memory_model:
            model = adapted.small_memory_model(TORCH_DTYPE[dtype])
        else:
            model = EdgeGradientModel(adapted.energy_model(TORCH_DTYPE[dtype]))
        module = form(model, adapted.elements, adapted.cutoff, TORCH_DTYPE[dtype]).eval()
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        # Not frozen: constants of a frozen module stay on the CPU when TorchForce moves the module to a GPU.
        scripted = adapted.scripted(module)
        _remove_exchange(scripted, adapted.identity.name)
    if symbols is not None:
        unknown = next((symbol for symbol in symbols if symbol not in adapted.elements), None)
        if unknown is not None:
            raise MLIPError(
                f"atom {list(symbols).index(unknown)} (counted from 0) is '{unknown}', not an element of "
                f"{adapted.identity.name}. Name the atoms that the model can see with particles"
            )
        scripted.set_atoms(list(symbols), list(particles or []))
    record = {
        "model": adapted.identity.model_dump(),
        "elements": adapted.elements,
        "cutoff_in_angstrom": adapted.cutoff,
        "dtype": dtype,
        "energy_frame": adapted.energy_frame.model_dump(),
        "outputs_forces": forces,
    }
    progress(f"writing {output}")
    buffer = io.BytesIO()  # torch aborts the process when a disk is full
    with quiet():
        torch.jit.save(scripted, buffer, _extra_files={RECORD: json.dumps(record, indent=1)})
    with replacing(output) as file:
        file.write(buffer.getvalue())


def _remove_exchange(scripted: torch.jit.ScriptModule, name: str) -> None:
    """One process owns all atoms: features of neighbours are there already, and sums over its atoms are over all."""
    remaining: set[str] = set()
    for module in scripted.modules():
        compiled: Any = module._c
        for method in compiled._method_names():
            graph = compiled._get_method(method).graph
            for node in graph.findAllNodes("mlip::ghost_gather", True):
                node.output().replaceAllUsesWith(next(iter(node.inputs())))
                node.destroy()
            for node in graph.findAllNodes("mlip::sum_over_atoms", True):
                with graph.insert_point_guard(node):
                    zero, no, same = (graph.insertConstant(value) for value in ([0], False, None))
                    arguments = [next(iter(node.inputs())), zero, no, same]
                    total = graph.insertNode(graph.create("aten::sum", arguments, 1))
                node.output().replaceAllUsesWith(total.output())
                node.destroy()
            remaining |= {node.kind() for node in _all_nodes(graph) if node.kind().startswith("mlip::")}
    if remaining:
        raise MLIPError(
            f"{name} calls {', '.join(sorted(remaining))}, which openmmtorch does not have. Export it without fused "
            "operators: adapt(source, ExportOptions(fuse=False))"
        )


def _all_nodes(block: torch.Graph | torch.Block) -> list[torch.Node]:
    """Of a graph or a block, with the nodes of nested blocks."""
    nodes = []
    for node in block.nodes():
        nodes.append(node)
        for inner in node.blocks():
            nodes += _all_nodes(inner)
    return nodes

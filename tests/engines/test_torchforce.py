"""TorchForce files: the numbers of MLIPForce from a module that knows nothing of mlip-deploy.

The module is called here as openmmtorch calls it; test_openmmtorch.py does the same through openmmtorch itself, in an
environment of its own.
"""

import subprocess
import sys

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st
from models import ELEMENTS
from openmm_cases import context_for, context_of, energy_of, ethanol, forces_of, rocksalt
from tolerances import FORCE_SIGNAL

from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.interface import EdgeGradientModel
from mlip_deploy.exporters.targets.torchforce import find_edges, write_torchforce
from mlip_deploy.openmm import MLIPForce, system_of

KJ_TOLERANCE = 1e-8  # kJ/mol and kJ/mol/nm, float64 sums in another order


@pytest.fixture(scope="module")
def adapted(artifacts):
    from mlip_deploy.exporters.families.registry import ExportOptions
    from mlip_deploy.exporters.families.sevennet import adapter as sevennet

    return sevennet.adapt(str(artifacts.checkpoint()), ExportOptions(fuse=False))


@pytest.fixture(scope="module")
def files(adapted, tmp_path_factory):
    """One file per output form, with no atoms stored."""

    folder = tmp_path_factory.mktemp("torchforce")
    paths = {True: folder / "forces.torchforce.pt", False: folder / "energy.torchforce.pt"}
    for forces, path in paths.items():
        write_torchforce(adapted, path, "float64", lambda _: None, forces=forces)
    return paths


def call(path, atoms, forces, particles=(), symbols=None):
    """Energy and forces as TorchForce asks for them, kJ/mol and kJ/mol/nm."""
    module = torch.jit.load(str(path))
    module.set_atoms(symbols or atoms.get_chemical_symbols(), list(particles))
    positions = torch.tensor(0.1 * atoms.positions, requires_grad=not forces)
    inputs = (positions, torch.tensor(0.1 * atoms.cell.array)) if atoms.pbc.all() else (positions,)
    output = module(*inputs)
    if forces:
        energy, result = output
        assert result.is_contiguous()
        assert result.dtype == positions.dtype
    else:
        energy = output
        energy.backward()
        result = -positions.grad
    assert energy.dtype == torch.float64
    return float(energy.detach()), result.numpy()


def turned(atoms):
    from mlip_deploy.engines.openmm_box import reduced_box

    box, rotation = reduced_box(atoms)
    return Atoms(atoms.symbols, positions=atoms.positions @ rotation.T, cell=box, pbc=atoms.pbc)


def tiny_box():
    return turned(bulk("Si", "bcc", a=2.9))


def large_crystal():
    """512 atoms: several bins in each direction."""
    atoms = bulk("NaCl", "rocksalt", a=5.2, cubic=True).repeat(4)
    atoms.rattle(0.15, seed=3)
    return atoms


def scattered_gas():
    """Far apart: more empty bins than may be made."""
    return ethanol() + Atoms("OH", positions=[[900.0, 0, 0], [900.9, 0, 0]])


def lone_atom():
    return Atoms("O", positions=[[1.0, 2.0, 3.0]])


@pytest.mark.parametrize("forces", [True, False], ids=["energy and forces", "energy"])
@pytest.mark.parametrize("make", [rocksalt, ethanol, tiny_box, large_crystal, scattered_gas, lone_atom])
def test_numbers_of_mlip_force(make, forces, files, tiny):
    atoms = make()
    atoms.positions += [17.3, -31.1, 55.7]
    energy, result = call(files[forces], atoms, forces)
    context = context_for(tiny, atoms)
    truth = forces_of(context)
    if make not in (tiny_box, lone_atom):
        assert np.abs(truth).max() > 1000 * FORCE_SIGNAL
    assert energy == pytest.approx(energy_of(context), abs=KJ_TOLERANCE * len(atoms))
    np.testing.assert_allclose(result, truth, atol=KJ_TOLERANCE)


@pytest.mark.parametrize("forces", [True, False])
def test_atom_subset(forces, files, tiny):
    atoms = ethanol()
    order = [4, 0, 2, 7]
    symbols = [atoms.get_chemical_symbols()[k] for k in order]
    energy, result = call(files[forces], atoms, forces, particles=order, symbols=symbols)
    system = system_of(atoms, tiny)
    system.removeForce(0)
    system.addForce(MLIPForce(tiny, atoms.get_chemical_symbols(), atoms=order))
    context = context_of(system, atoms)
    assert energy == pytest.approx(energy_of(context), abs=KJ_TOLERANCE)
    np.testing.assert_allclose(result, forces_of(context), atol=KJ_TOLERANCE)
    assert np.abs(result[order]).max() > FORCE_SIGNAL


def test_float32_positions(files, tiny):
    """GPU platforms hand over float32 positions and want float32 forces."""
    module = torch.jit.load(str(files[True]))
    atoms = rocksalt()
    module.set_atoms(atoms.get_chemical_symbols(), [])
    energy, forces = module(
        torch.tensor(0.1 * atoms.positions, dtype=torch.float32), torch.tensor(0.1 * atoms.cell.array).float()
    )
    context = context_for(tiny, atoms)
    assert forces.dtype == torch.float32
    assert float(energy) == pytest.approx(energy_of(context), rel=1e-5)
    np.testing.assert_allclose(forces.numpy(), forces_of(context), atol=0.5)


ALONE = """
import sys, torch
assert not any(name.startswith("mlip") for name in sys.modules)
module = torch.jit.load(sys.argv[1])
module.set_atoms(["O", "H", "H"], [])
energy, forces = module(torch.tensor([[0.0, 0, 0], [0.1, 0, 0], [0, 0.1, 0]], dtype=torch.float64))
print(float(energy), forces.abs().max().item())
assert not any("libmlip" in line for line in open("/proc/self/maps"))
"""


def test_loads_where_mlip_deploy_is_not(files, tiny):
    done = subprocess.run([sys.executable, "-c", ALONE, str(files[True])], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    energy, force = map(float, done.stdout.split())
    context = context_for(tiny, Atoms("OHH", positions=[[0, 0, 0], [1.0, 0, 0], [0, 1.0, 0]]))
    assert energy == pytest.approx(energy_of(context), abs=KJ_TOLERANCE)
    assert force == pytest.approx(np.abs(forces_of(context)).max(), abs=KJ_TOLERANCE)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_edges_against_ase(data):
    """Random atoms in triclinic cells of any size and without one: the very pairs and shifts of ASE's list."""
    from ase.neighborlist import neighbor_list

    n = data.draw(st.integers(1, 40))
    random = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    size = data.draw(st.sampled_from([1.5, 4.0, 9.0, 17.0]))
    periodic = data.draw(st.booleans())
    cell = np.diag(random.uniform(size, 1.5 * size, 3)) + np.tril(random.uniform(-0.5, 0.5, (3, 3)) * size, -1)
    atoms = Atoms(["H"] * n, positions=random.uniform(-2, 2, (n, 3)) * size, cell=cell, pbc=periodic)
    cutoff = 3.0
    edges, shifts = find_edges(torch.tensor(atoms.positions), torch.tensor(cell), periodic, cutoff)
    vectors = atoms.positions[edges[1]] - atoms.positions[edges[0]] + shifts.numpy()
    i, j, d = neighbor_list("ijD", atoms, cutoff)

    def rows(centres, neighbours, vectors):
        table = np.column_stack([centres, neighbours, np.round(vectors, 7) + 0.0])
        return table[np.lexsort(table.T[::-1])]

    np.testing.assert_allclose(rows(*edges.numpy(), vectors), rows(i, j, d), atol=2e-7)


MEMORY = """
import sys, torch
from ase.build import bulk
from mlip_deploy.bench.measure import peak_memory
atoms = bulk("NaCl", "rocksalt", a=5.2, cubic=True).repeat((5, 5, 5))
module = torch.jit.load(sys.argv[1])
module.set_atoms(atoms.get_chemical_symbols(), [])
energy, forces = module(torch.tensor(0.1 * atoms.positions), torch.tensor(0.1 * atoms.cell.array))
print(len(atoms), peak_memory() / 1024**2)
"""


@pytest.mark.parametrize("chunk", [1, 37, 100_000])
def test_chunks_of_edges(adapted, chunk):
    """A sum over chunks is the sum: same energies and gradients, whatever the size of a chunk."""
    model = adapted.small_memory_model(torch.float64)
    whole = EdgeGradientModel(adapted.energy_model(torch.float64))
    model.chunk = chunk
    atoms = rocksalt()
    edges, shifts = find_edges(torch.tensor(atoms.positions), torch.tensor(atoms.cell.array), True, adapted.cutoff)
    assert edges.shape[1] > 100
    vectors = torch.tensor(atoms.positions)[edges[1]] - torch.tensor(atoms.positions)[edges[0]] + shifts
    types = torch.tensor([adapted.elements.index(symbol) for symbol in atoms.get_chemical_symbols()])
    energies, gradient = model(types, len(atoms), edges, vectors)
    expected_energies, expected_gradient = whole(types, len(atoms), edges, vectors)
    assert expected_gradient.abs().max() > 0.01
    torch.testing.assert_close(energies, expected_energies, rtol=0, atol=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-12)


@pytest.fixture(scope="module")
def seven_net(tmp_path_factory):
    from mlip_deploy.exporters.families.registry import ExportOptions
    from mlip_deploy.exporters.families.sevennet import adapter as sevennet

    path = tmp_path_factory.mktemp("7net-0") / "7net-0.torchforce.pt"
    write_torchforce(sevennet.adapt("7net-0", ExportOptions(fuse=False)), path, "float32", lambda _: None)
    return path


def test_memory_of_1000_atoms(seven_net):
    done = subprocess.run([sys.executable, "-c", MEMORY, str(seven_net)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    atoms, megabytes = map(float, done.stdout.split())
    assert atoms == 1000
    assert megabytes < 2000


# ---- wrong inputs -------------------------------------------------------------------------------------------


def test_no_atoms_said(files):
    with pytest.raises(torch.jit.Error, match="does not say what the particles are"):
        torch.jit.load(str(files[True]))(torch.zeros(3, 3))


def test_unknown_symbol(files):
    with pytest.raises(torch.jit.Error, match=r"atom 1 \(counted from 0\) is 'Xe', not an element of the model"):
        torch.jit.load(str(files[True])).set_atoms([ELEMENTS[0], "Xe"], [])


@pytest.mark.parametrize("forces", [True, False])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("particles", [(), (4, 2, 3)])
def test_a_position_that_is_not_finite(files, forces, value, particles):
    atoms = ethanol()
    atoms.positions[2] = value
    symbols = [atoms.get_chemical_symbols()[k] for k in particles] or None
    with pytest.raises(torch.jit.Error, match=r"the position of particle 2 \(counted from 0\) is not a finite number"):
        call(files[forces], atoms, forces, particles, symbols)


@pytest.mark.parametrize(
    ("particles", "message"),
    [
        ([3, 1, 3], r"atoms 0 and 2 \(counted from 0\) are both particle 3\. Name each particle once"),
        ([0, -1, 2], "particle -1 of atom 1 is negative"),
    ],
)
def test_particles_are_named_once(files, particles, message):
    with pytest.raises(torch.jit.Error, match=message):
        torch.jit.load(str(files[True])).set_atoms(["O", "H", "H"], particles)


def test_other_atom_count(files):
    module = torch.jit.load(str(files[True]))
    module.set_atoms(["H", "H"], [])
    with pytest.raises(torch.jit.Error, match="the file is for 2 atoms, the System has 3"):
        module(torch.zeros(3, 3))


def test_unknown_element_at_export(adapted, tmp_path):

    with pytest.raises(MLIPError, match=r"atom 1 \(counted from 0\) is 'Xe', not an element of tiny"):
        write_torchforce(adapted, tmp_path / "x.torchforce.pt", "float32", lambda _: None, ["H", "Xe"])
    assert not list(tmp_path.iterdir())


class CallsAnotherOperator(torch.nn.Module):
    def forward(
        self, node_types: torch.Tensor, n_owned: int, edge_index: torch.Tensor, edge_vectors: torch.Tensor
    ) -> torch.Tensor:
        return torch.ops.mlip.ghost_gather_backward(edge_vectors.sum(dim=1), n_owned)


def test_a_model_with_other_operators_is_refused(adapted, tmp_path):
    from dataclasses import replace

    fused = replace(
        adapted, energy_model=lambda _: CallsAnotherOperator(), small_memory_model=None, script=torch.jit.script
    )
    with pytest.raises(MLIPError, match="tiny calls mlip::ghost_gather_backward, which openmmtorch does not have"):
        write_torchforce(fused, tmp_path / "x.torchforce.pt", "float32", lambda _: None)
    assert not list(tmp_path.iterdir())

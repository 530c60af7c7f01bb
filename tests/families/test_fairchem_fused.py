"""`mlip::so2_convolution` against the layers of eSEN made of torch's operators, and what it refuses.

Those layers are held against fairchem's own by test_fairchem.py, as whole files with the operator are.
"""

from collections.abc import Iterator
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from ase.build import bulk
from models import tiny_fairchem_checkpoint

if find_spec("fairchem") is None:
    pytest.skip(
        "the package 'fairchem.core' is not installed. Type: pip install fairchem-core --no-deps",
        allow_module_level=True,
    )

from mlip_deploy import export
from mlip_deploy.exporters.families.registry import FAMILIES, ExportOptions
from mlip_deploy.exporters.parts import graph
from mlip_deploy.exporters.targets import aotinductor
from mlip_deploy.operators import load_operators

load_operators()
FLOAT64 = 1e-10
"""relative to the largest number: sums of some hundred products in another order"""
FLOAT32 = 1e-4
"""likewise, where a sum of two numbers of a product of complex ones is made before they are multiplied"""
ELEMENTS = ("Na", "Cl")


@pytest.fixture(autouse=True)
def _as_it_was(fastest_instruction_set) -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def models(source, dtype=torch.float64):
    """The energy model with the operator, and without."""
    options = (ExportOptions(elements=ELEMENTS, fuse=fuse) for fuse in (True, False))
    return [FAMILIES["fairchem"].adapt(str(source), one).energy_model(dtype) for one in options]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Widths that whole vectors do not divide; edges of several blocks, since the operator takes some at a time."""
    changes = {"sphere_channels": 22, "hidden_channels": 13, "edge_channels": 19, "num_layers": 1}
    return tiny_fairchem_checkpoint(tmp_path_factory.mktemp("fused") / "x.pt", **changes)


@pytest.fixture(scope="module")
def pair(source):
    return models(source)


def salt(dtype=torch.float64):
    atoms = bulk("NaCl", "rocksalt", a=4.4, cubic=True).repeat((3, 1, 1))
    atoms.rattle(0.2, seed=5)
    types, edges, vectors = graph(atoms, ELEMENTS, 4.0, dtype)
    assert edges.shape[1] > 2 * 256
    return types, len(atoms), edges, vectors


def results(model, types, n_owned, edges, vectors):
    """Energies, and their gradients."""
    vectors = vectors.clone().requires_grad_()
    energies = model(types, n_owned, edges, vectors)
    return energies.detach(), torch.autograd.grad(energies.sum(), vectors)[0]


def assert_the_same(pair, system, tolerance=FLOAT64):
    for found, truth in zip(results(pair[0], *system), results(pair[1], *system), strict=True):
        scale = float(truth.abs().max()) if truth.numel() else 1.0
        np.testing.assert_allclose(found, truth, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("name", torch.ops.mlip.instruction_sets())
def test_every_instruction_set_on_any_number_of_threads(pair, name):
    torch.ops.mlip.use_instruction_set(name)
    for n_threads in (1, 3):
        torch.set_num_threads(n_threads)
        assert_the_same(pair, salt())


@pytest.mark.parametrize(
    "changes",
    [{"lmax": 3, "mmax": 2}, {"lmax": 4, "mmax": 1, "hidden_channels": 12, "ff_type": "spectral"}, {"mmax": 0}],
)
def test_architectures(changes, tmp_path):
    pair = models(tiny_fairchem_checkpoint(tmp_path / "x.pt", num_layers=1, **changes))
    assert_the_same(pair, salt())


def test_few_edges_and_edges_in_any_order(pair):
    types, n_atoms, edges, vectors = salt()
    order = torch.randperm(edges.shape[1], generator=torch.Generator().manual_seed(1))
    for some in (order, order[:40], order[:1], order[:0]):
        for n_threads in (1, 3):
            torch.set_num_threads(n_threads)
            assert_the_same(pair, (types, n_atoms, edges[:, some], vectors[some]))


def test_float32(source):
    assert_the_same(models(source, torch.float32), salt(torch.float32), FLOAT32)


def test_a_trace_fixes_no_number_of_atoms_or_edges(source, tmp_path, monkeypatch):
    """Otherwise `--backend aotinductor` refuses the model. The compiler, which takes a minute, is not run here."""

    class TracedError(Exception):
        pass

    def compile_nothing(*arguments):
        raise TracedError

    monkeypatch.setattr(aotinductor, "_compile", compile_nothing)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(TracedError):
        export("fairchem", source, tmp_path / "x.mlip.pt2", elements=ELEMENTS, backend="aotinductor")


def arguments(pair):
    """Of the operator, as the first layer gives them."""
    messages = pair[0].layers[0].messages
    types, n_atoms, edges, vectors = salt()
    nodes = torch.randn(n_atoms, 9, 22, dtype=torch.float64, requires_grad=True)
    distances = vectors.norm(dim=1)
    rotations = pair[0].rotations(vectors, distances)
    basis = torch.randn(edges.shape[1], 16, dtype=torch.float64)
    lists = [list(one) for one in (messages.radial, messages.first, messages.second)]
    return [
        nodes,
        rotations,
        pair[0].envelope(distances),
        basis,
        types,
        edges,
        n_atoms,
        *lists,
        messages.epsilon,
        False,
    ]


def test_what_it_refuses(pair):
    given = arguments(pair)
    torch.ops.mlip.so2_convolution(*given)

    def refused(place, value):
        torch.ops.mlip.so2_convolution(*given[:place], value, *given[place + 1 :])

    with pytest.raises(IndexError, match=r"a centre outside \[0, 24\) or a neighbour outside \[0, 24\)"):
        refused(5, given[5] + 1)
    with pytest.raises(IndexError, match=r"a node has a type outside \[0, 2\)"):
        refused(4, given[4] + 1)
    with pytest.raises(RuntimeError, match=r"8 components of nodes, .* do not fit each other"):
        refused(0, given[0][:, :8])
    with pytest.raises(
        RuntimeError, match=r"expected rotations \[\d+, 9, 9\] of Double, found \[\d+, 8, 9\] of Double"
    ):
        refused(1, given[1][:, :8])
    with pytest.raises(RuntimeError, match=r"expected envelope \[\d+\] of Double, found \[\d+\] of Float"):
        refused(2, given[2].float())
    with pytest.raises(RuntimeError, match=r"expected second .* of Double, found"):
        refused(9, [*given[9][:2], *given[9][:1:-1]])


def test_no_second_derivative(pair):
    given = arguments(pair)
    with pytest.raises(NotImplementedError, match="mlip::so2_convolution has no second derivative"):
        torch.autograd.grad(torch.ops.mlip.so2_convolution(*given)[0].sum(), given[0], create_graph=True)

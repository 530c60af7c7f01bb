"""`mlip::equivariant_linear` against e3nn's own layers, with its gradient, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from e3nn import o3
from tolerances import FLOAT64_SUM
from torch import Tensor

from mlip_deploy.exporters.layers.equivariant import (
    EquivariantLinear,
    NotFusible,
    element_term,
    linear_term,
    table_term,
    to_blocks,
)
from mlip_deploy.exporters.settings import default_dtype

IRREPS_IN = [o3.Irreps("7x0e+5x1o+19x2e"), o3.Irreps("3x0e+2x0o+6x1o")]
IRREPS_OUT = o3.Irreps("11x0e+4x1o+2x2e")
TYPES = [2, 0, 2, 2, 0]
"""of four elements"""


def problem(n_atoms: int = len(TYPES)) -> tuple[EquivariantLinear, list[Tensor], Tensor, Tensor]:
    """A layer, of two inputs, of the elements, of tables and with a bias; its inputs, types, and what e3nn says."""
    torch.manual_seed(0)
    with default_dtype(torch.float64):
        first = o3.Linear(IRREPS_IN[0], IRREPS_OUT, biases=True)
        second = o3.FullyConnectedTensorProduct(IRREPS_IN[1], "4x0e", IRREPS_OUT)
        torch.nn.init.normal_(first.bias)
        x = [torch.randn(n_atoms, irreps.dim) for irreps in IRREPS_IN]
        table = torch.randn(4, IRREPS_OUT.dim)
    types = torch.tensor(TYPES[:n_atoms], dtype=torch.int64)
    one_hot = torch.nn.functional.one_hot(types, 4).double()
    expected = first(x[0]) + second(x[1], one_hot) + table[types]
    layer = EquivariantLinear(
        linear_term(first, factor=1.0), element_term(second), table_term(to_blocks(table, IRREPS_OUT))
    )
    inputs = [block for x_, irreps in zip(x, IRREPS_IN, strict=True) for block in to_blocks(x_, irreps)]
    return layer, inputs, types, expected.detach()


@pytest.mark.parametrize("n_atoms", [len(TYPES), 1, 0])
def test_against_e3nn(n_atoms: int) -> None:
    layer, inputs, types, expected = problem(n_atoms)
    for found, block in zip(layer(inputs, types), to_blocks(expected, IRREPS_OUT), strict=True):
        torch.testing.assert_close(found, block, rtol=0, atol=FLOAT64_SUM)
    layer.as_rows = True
    (rows,) = layer(inputs, types)
    blocks = torch.cat([block.flatten(1) for block in to_blocks(expected, IRREPS_OUT)], dim=1)
    torch.testing.assert_close(rows, blocks, rtol=0, atol=FLOAT64_SUM)


@pytest.mark.parametrize("as_rows", [False, True])
def test_gradient(as_rows: bool) -> None:
    layer, inputs, types, _ = problem()
    layer.as_rows = as_rows
    leaves = [block.requires_grad_() for block in inputs]
    assert torch.autograd.gradcheck(lambda *blocks: tuple(layer(list(blocks), types)), leaves)


def test_only_gradients_that_are_asked_for() -> None:
    layer, inputs, types, _ = problem()
    inputs[4].requires_grad_()
    sum(block.sum() for block in layer(inputs, types)).backward()
    assert [block.grad is not None for block in inputs] == [k == 4 for k in range(len(inputs))]


def test_strided_inputs_and_gradients() -> None:
    layer, inputs, types, _ = problem()
    expected = layer(inputs, types)
    strided = [block.transpose(1, 2).contiguous().transpose(1, 2).requires_grad_() for block in inputs]
    found = layer(strided, types)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    weights = [torch.randn(*reversed(block.shape), dtype=block.dtype).permute(2, 1, 0) for block in found]
    dense = [block.detach().clone().requires_grad_() for block in inputs]
    for leaves, outputs in ((strided, found), (dense, layer(dense, types))):
        torch.autograd.backward(outputs, weights if leaves is strided else [w.contiguous() for w in weights])
    for a, b in zip(strided, dense, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=0)


def test_no_second_derivative() -> None:
    layer, inputs, types, _ = problem()
    leaf = inputs[0].requires_grad_()
    with pytest.raises(NotImplementedError, match="mlip::equivariant_linear has no second derivative"):
        torch.autograd.grad(layer(inputs, types)[0].sum(), leaf, create_graph=True)


def test_what_it_refuses() -> None:
    layer, inputs, types, _ = problem()
    with pytest.raises(IndexError, match="type 4 is not one of 4 elements"):
        layer(inputs, types + 2)
    with pytest.raises(RuntimeError, match="4 types for 5 atoms"):
        layer(inputs, types[:4])
    with pytest.raises(RuntimeError, match=r"input 0 is \[5, 1, 6\], expected \[n_atoms, 1, 7\]"):
        layer([inputs[0][:, :, 1:], *inputs[1:]], types)
    with pytest.raises(RuntimeError, match=r"inputs .* of the matrices' type, found Float"):
        layer([block.float() for block in inputs], types)
    with pytest.raises(NotFusible, match="that are added up lead to"):
        EquivariantLinear(linear_term(o3.Linear("2x0e", "3x0e")), linear_term(o3.Linear("2x0e", "4x0e")))

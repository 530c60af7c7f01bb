"""Gradients of slices, joined: the same numbers, and no tensor of the full width for each slice."""

import pytest
import torch
from tolerances import FLOAT64_SUM
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from mlip_deploy.exporters.targets.slice_gradients import join_slice_gradients

WIDTH = 10


def beside_each_other(x: Tensor) -> Tensor:
    return x[:, :3].sin().sum() + (x[:, 3:7] ** 2).sum() + x[:, 7:].exp().sum()


def with_a_gap_and_one_twice(x: Tensor) -> Tensor:
    return x[:, 1:4].sin().sum() + x[:, 1:4].exp().sum() + (x[:, 6:8] ** 3).sum()


def with_a_whole(x: Tensor) -> Tensor:
    return x[:, 1:4].sin().sum() + (x[:, 6:8] ** 3).sum() + x.cos().sum()


def overlapping(x: Tensor) -> Tensor:
    return x[:, 1:4].sin().sum() + (x[:, 3:8] ** 3).sum()


@pytest.mark.parametrize(
    ("function", "left"), [(beside_each_other, 0), (with_a_gap_and_one_twice, 0), (with_a_whole, 0), (overlapping, 2)]
)
def test_the_same_gradient(function, left):
    def gradient(x: Tensor) -> Tensor:
        x = x.reshape(-1, WIDTH).detach().requires_grad_(True)
        return torch.autograd.grad(function(x), x)[0]

    graph = make_fx(gradient, tracing_mode="symbolic")(torch.zeros(5 * WIDTH, dtype=torch.float64))
    backward = torch.ops.aten.slice_backward.default
    assert len(graph.graph.find_nodes(op="call_function", target=backward)) > left
    join_slice_gradients(graph)
    assert len(graph.graph.find_nodes(op="call_function", target=backward)) == left
    for n in (0, 1, 4):
        x = torch.randn(n * WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
        torch.testing.assert_close(graph(x), gradient(x), rtol=0, atol=FLOAT64_SUM)

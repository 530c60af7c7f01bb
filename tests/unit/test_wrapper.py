"""What adapters share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mlip_deploy.exporters.settings import torchs_own_functions


class Selecting(nn.Module):
    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        return torch.index_select(x, 0, index) + torch.select(x, 1, 0).unsqueeze(1)[: index.numel()]


class SelectingToo(Selecting):
    """TorchScript does not try a class again that it has refused."""


def test_another_packages_functions_do_not_stop_torchscript(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch_geometric, which SevenNet imports, replaces them: NequIP could not be exported in the same process."""

    def index_select(x: Tensor, dim: int | str, index: Tensor, *more: object) -> Tensor:
        return x[index]

    def select(x: Tensor, dim: int | str, index: int, *more: object) -> Tensor:
        return x[:, index]

    monkeypatch.setattr(torch, "index_select", index_select)
    monkeypatch.setattr(torch, "select", select)
    with pytest.raises(torch.jit.frontend.NotSupportedError):
        torch.jit.script(SelectingToo())
    with torchs_own_functions():
        scripted = torch.jit.script(Selecting())
    assert torch.index_select is index_select
    assert torch.select is select
    x = torch.arange(6.0).reshape(3, 2)
    index = torch.tensor([2, 0])
    assert torch.equal(scripted(x, index), x[index] + x[:2, :1])

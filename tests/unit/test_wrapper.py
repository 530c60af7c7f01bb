"""What adapters share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mlip_deploy.export.wrapper import torchs_own_functions


class Selecting(nn.Module):
    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        return torch.index_select(x, 0, index)


class SelectingToo(Selecting):
    """TorchScript does not try a class again that it has refused."""


def test_another_packages_index_select_does_not_stop_torchscript(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch_geometric replaces it, which SevenNet imports: NequIP could then not be exported in the same process."""

    def replaced(x: Tensor, dim: int | str, index: Tensor, *more: object) -> Tensor:
        return x[index]

    monkeypatch.setattr(torch, "index_select", replaced)
    with pytest.raises(torch.jit.frontend.NotSupportedError):
        torch.jit.script(SelectingToo())
    with torchs_own_functions():
        scripted = torch.jit.script(Selecting())
    assert torch.index_select is replaced
    x = torch.arange(6.0).reshape(3, 2)
    assert torch.equal(scripted(x, torch.tensor([2, 0])), x[[2, 0]])

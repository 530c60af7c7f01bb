"""Feed-forward layers of transformers: a norm, linear layers and an activation of rows of features."""

import torch
from torch import Tensor, nn

from mlip_deploy.operators import load_operators


class RootMeanSquareNorm(nn.Module):
    """torch's RMSNorm, whose backward pass is made of more operators than this one's."""

    weight: Tensor

    def __init__(self, original: nn.RMSNorm):
        super().__init__()
        self.register_buffer("weight", original.weight.detach())
        self.epsilon = _epsilon(original)
        self.inverse_width = 1.0 / original.weight.shape[0]

    def forward(self, x: Tensor) -> Tensor:
        mean_square = torch.linalg.vecdot(x, x).unsqueeze(1) * self.inverse_width
        result: Tensor = x * (mean_square + self.epsilon).rsqrt() * self.weight
        return result


def plain_norm(original: nn.Module) -> nn.Module:
    """By torch's operators alone."""
    return RootMeanSquareNorm(original) if isinstance(original, nn.RMSNorm) else original


def _epsilon(norm: nn.RMSNorm) -> float:
    return float(torch.finfo(norm.weight.dtype).eps if norm.eps is None else norm.eps)


class FeedForward(nn.Module):
    """A norm, a linear layer, an activation and another linear layer of rows.

    Args:
        norm: RMSNorm, LayerNorm, or Identity.
        first, second: linear layers; without a second one, no activation follows the first.
        gated: the activation is values times the sigmoid of gates, torch's glu; silu otherwise.
        add: whether the rows are added to the result.
        fuse: whether to use `mlip::feed_forward`, or torch's operators alone.
    """

    # TorchScript then compiles only the branches that are taken.
    __constants__ = ("fuse", "two_layers", "gated", "add")
    first_matrix: Tensor
    first_bias: Tensor
    second_matrix: Tensor
    second_bias: Tensor

    def __init__(
        self,
        norm: nn.Module,
        first: nn.Linear,
        second: nn.Linear | None = None,
        gated: bool = False,
        add: bool = False,
        *,
        fuse: bool,
    ):
        super().__init__()
        if fuse:
            load_operators()
        self.fuse, self.two_layers, self.gated, self.add = fuse, second is not None, gated, add
        self.kind, self.epsilon = "none", 0.0
        self.activation = "glu" if gated else "silu"
        if not fuse:
            self.norm, self.first, self.second = plain_norm(norm), first, second or nn.Identity()
            return
        # What a norm multiplies and adds for each channel is part of the first layer.
        weight, bias = first.weight.detach(), first.bias.detach()
        if isinstance(norm, nn.RMSNorm):
            self.kind, self.epsilon = "root_mean_square", _epsilon(norm)
            weight = weight * norm.weight.detach()
        elif isinstance(norm, nn.LayerNorm):
            self.kind, self.epsilon = "layer", float(norm.eps)
            weight, bias = weight * norm.weight.detach(), bias + weight @ norm.bias.detach()
        self.register_buffer("first_matrix", weight.T.contiguous())
        self.register_buffer("first_bias", bias)
        if second is not None:
            self.register_buffer("second_matrix", second.weight.detach().T.contiguous())
            self.register_buffer("second_bias", second.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        if self.fuse:
            weights = [self.first_matrix, self.first_bias]
            if self.two_layers:
                weights += [self.second_matrix, self.second_bias]
            result: Tensor = torch.ops.mlip.feed_forward(
                x, weights, self.kind, self.epsilon, self.activation, self.add, False
            )[0]
        else:
            result = self.first(self.norm(x))
            if self.two_layers:
                result = self.second(nn.functional.glu(result, 1) if self.gated else nn.functional.silu(result))
            if self.add:
                result = x + result
        return result

"""Dense layers whose numbers are given."""

from torch import Tensor, nn


def linear_layer(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """A linear layer with a copy of these numbers, without gradients.

    Args:
        weight: [n_out, n_in].
        bias: [n_out], or none.
    """
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
    layer.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return layer

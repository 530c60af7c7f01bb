"""The cutoff function that many families share."""

import torch
from torch import Tensor


def polynomial_cutoff(x: Tensor, p: float) -> Tensor:
    """DimeNet's (J. Gasteiger, J. Groß, S. Günnemann 2020): 1 at x = 0, and 0 with slope and curvature from x = 1 on.

    Its three powers of x have factors of up to 48, and their sum is between 0 and 1: added one by one in float32 their
    roundings would be most of the error of forces. The common power therefore stands in front of a bracket.

    Args:
        x: distance over cutoff.
        p: the lowest power.
    """
    bracket = (p + 1.0) * (p + 2.0) / 2.0 - x * (p * (p + 2.0) - x * (p * (p + 1.0) / 2.0))
    value = 1.0 - x.pow(p) * bracket
    return torch.where(x < 1.0, value, torch.zeros_like(value))

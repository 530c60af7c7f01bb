"""Tables of random radial weights of every form, and the weights that they give, by formulas of their own."""

from math import comb

import torch

from mlip_deploy.exporters.layers.radial_table import RadialTable

FORMS = ["splines", "splines with a kink", "polynomials"]
"""of `csrc/operators/radial_table_layout.h`"""


def random_table(
    form: str, n_intervals: int, n_weights: int, step: float, random: torch.Generator, n_tables: int = 0
) -> RadialTable:
    """Float64; `n_tables` 0 is one table without a dimension for it."""
    shapes = {
        "splines": [n_intervals + 5, n_weights],
        "splines with a kink": [n_intervals + 10, n_weights],
        "polynomials": [n_intervals, 6, n_weights],
    }
    shape = [n_tables, *shapes[form]] if n_tables else shapes[form]
    values = torch.randn(shape, generator=random, dtype=torch.float64)
    return RadialTable(values, step, n_intervals // 2 if form == "splines with a kink" else 0)


def weights(table: RadialTable, distances: torch.Tensor, table_of_edge: torch.Tensor | None = None) -> torch.Tensor:
    """[n_edges, n_weights] of distances [n_edges].

    The pieces of B-splines are sums of truncated powers: I. J. Schoenberg, Quart. Appl. Math. 4, 45 (1946).
    """
    values = table.values if table_of_edge is None else table.values[table_of_edge]  # of each edge
    polynomials = values.dim() == (3 if table_of_edge is None else 4)
    n_rows = values.shape[-3] if polynomials else values.shape[-2]
    n_intervals = n_rows if polynomials else n_rows - (10 if table.kink else 5)
    position = distances / table.step
    interval = position.detach().long().clamp(0, n_intervals - 1)
    s = (position - interval).unsqueeze(1)

    def row(numbers: torch.Tensor) -> torch.Tensor:
        return values[numbers] if table_of_edge is None else values[torch.arange(len(numbers)), numbers]

    if polynomials:
        of_interval = row(interval)
        return sum(of_interval[:, power] * s**power for power in range(6))
    first = interval + 5 * (interval >= table.kink) if table.kink else interval

    def piece(k: int, s: torch.Tensor) -> torch.Tensor:
        if k < 3:  # from the other side, where fewer terms cancel
            return piece(5 - k, 1.0 - s)
        return sum((-1) ** j * comb(6, j) * (s + 5 - k - j) ** 5 for j in range(6 - k)) / 120

    return sum(piece(k, s) * row(first + k) for k in range(6))

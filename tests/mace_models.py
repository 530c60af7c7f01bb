"""Small MACE models of the real classes with random weights, for tests."""

from typing import Any

import numpy as np
import torch

ELEMENTS = (1, 6, 8, 11, 14, 17)
"""H, C, O, Na, Si, Cl"""


def mace_model(
    layers: int = 2,
    heads: list[str] | None = None,
    scale_shift: bool = True,
    first: str = "RealAgnosticResidualInteractionBlock",
    others: str = "RealAgnosticResidualInteractionBlock",
    hidden: str = "6x0e+6x1o",
    correlation: int = 3,
    max_ell: int = 2,
    seed: int = 0,
    scale: float = 16.0,
    **options: Any,
) -> torch.nn.Module:
    """A model in float64 whose forces on a rattled crystal are of the order of 1 eV/Å."""
    from mace import modules  # before e3nn, whose 0.4.4 cannot be imported with torch's defaults

    from e3nn import o3  # isort: skip

    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(seed)
    names = heads or ["Default"]
    energies = np.array([[-3.0 * k - 0.5 * index for index in range(len(ELEMENTS))] for k in range(1, len(names) + 1)])
    if "edge_irreps" in options:
        options["edge_irreps"] = o3.Irreps(options["edge_irreps"])
    if scale_shift:
        spread = [scale + k for k in range(len(names))]
        options |= {"atomic_inter_scale": spread, "atomic_inter_shift": [0.1 * s for s in spread]}
    try:
        model = (modules.ScaleShiftMACE if scale_shift else modules.MACE)(
            r_max=4.0,
            num_bessel=6,
            num_polynomial_cutoff=5,
            max_ell=max_ell,
            interaction_cls=modules.interaction_classes[others],
            interaction_cls_first=modules.interaction_classes[first],
            num_interactions=layers,
            num_elements=len(ELEMENTS),
            hidden_irreps=o3.Irreps(hidden),
            MLP_irreps=o3.Irreps("4x0e"),
            gate=torch.nn.functional.silu,
            atomic_energies=energies if len(names) > 1 else energies[0],
            avg_num_neighbors=3.0,
            atomic_numbers=list(ELEMENTS),
            correlation=correlation,
            radial_MLP=[8, 8],
            heads=heads,
            **options,
        )
        if not scale_shift:
            for readout in model.readouts:
                list(readout.parameters())[-1].data *= scale
        return model
    finally:
        torch.set_default_dtype(previous)

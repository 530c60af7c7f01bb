"""Write mace.model, a small MACE in float64 with random weights for Na and Cl, which docs/conform.md probes."""

import torch
from mace import modules  # before e3nn, which it prepares

from e3nn import o3  # isort: skip

torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
model = modules.ScaleShiftMACE(
    r_max=4.0,
    num_bessel=6,
    num_polynomial_cutoff=5,
    max_ell=2,
    interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
    interaction_cls_first=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
    num_interactions=2,
    num_elements=2,
    hidden_irreps=o3.Irreps("6x0e+6x1o"),
    MLP_irreps=o3.Irreps("4x0e"),
    gate=torch.nn.functional.silu,
    atomic_energies=[-1.3, -0.6],
    avg_num_neighbors=3.0,
    atomic_numbers=[11, 17],
    correlation=3,
    radial_MLP=[8, 8],
    atomic_inter_scale=16.0,
    atomic_inter_shift=1.6,
)
torch.save(model, "mace.model")

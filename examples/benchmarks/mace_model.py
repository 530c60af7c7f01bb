"""Write the MACE that docs/performance.md measures: 128x0e+128x1o, harmonics up to l = 3, correlation 3, two layers.

Its weights are random, since no weights come with mace-torch; speed does not depend on them.

    python examples/benchmarks/mace_model.py mace.model
    mlip export mace mace.model --trust-checkpoint -o mace.mlip.pt
    mlip export mace mace.model --trust-checkpoint -o mace-plain.mlip.pt --no-fuse
    mlip bench mace.mlip.pt --against mace-plain.mlip.pt --systems si64 --pairs 3 --steps 1

`mace_model.py mace.model agnesi`: blocks of later foundation models (density normalisation, Agnesi transform, 6 Å).
With the word `first`: no self-connection in the first layer, which symmetrix requires.
"""

import sys

import numpy as np
import torch
from mace import modules  # before e3nn, whose 0.4.4 cannot be imported with torch's defaults

from e3nn import o3  # isort: skip

ELEMENTS = (8, 14)
LATER, FIRST = "agnesi" in sys.argv[2:], "first" in sys.argv[2:]


def block(residual: str) -> type:
    """Class of a layer, with or without a self-connection."""
    return modules.interaction_classes[f"RealAgnostic{'Density' if LATER else ''}{residual}InteractionBlock"]


torch.manual_seed(0)
model = modules.ScaleShiftMACE(
    r_max=6.0 if LATER else 5.0,
    num_bessel=8,
    num_polynomial_cutoff=5,
    max_ell=3,
    interaction_cls=block("Residual"),
    interaction_cls_first=block("" if FIRST else "Residual"),
    num_interactions=2,
    num_elements=len(ELEMENTS),
    hidden_irreps=o3.Irreps("128x0e+128x1o"),
    MLP_irreps=o3.Irreps("16x0e"),
    gate=torch.nn.functional.silu,
    atomic_energies=np.array([-2.0, -1.0]),
    avg_num_neighbors=28.0,
    atomic_numbers=list(ELEMENTS),
    correlation=3,
    distance_transform="Agnesi" if LATER else "None",
    atomic_inter_scale=3.0,
    atomic_inter_shift=0.0,
)
torch.save(model, sys.argv[1] if len(sys.argv) > 1 else "mace.model")

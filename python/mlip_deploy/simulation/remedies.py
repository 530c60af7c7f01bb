"""What to do when a run has died, by what the engine said."""

from __future__ import annotations

import re

BLOW_UP = (
    "The atoms flew apart. Relax the structure first, and start from what comes out: mlip run ase MODEL STRUCTURE "
    "-o relaxed --ensemble min, then take relaxed/final.extxyz. If it still happens, halve the time step "
    "(--timestep), and ask whether the model knows such structures: mlip validate MODEL -o validation"
)
MEMORY = (
    "Take fewer atoms, or more ranks on more machines; mlip bench MODEL says how many atoms fit into a gigabyte. On a "
    "GPU a smaller system, or a file in float32, needs less"
)

REMEDIES = (
    (
        r"has a grade of",
        "The guard stopped it: the frame is in guard.extxyz. Compare the model with your reference method there, or "
        "give the domain more frames: mlip domain fit MODEL --frames FRAMES.extxyz. To collect more of them, write "
        "action warn in place of action stop in the input",
    ),
    (r"[Ll]ost atoms|[Nn]on-numeric|is NaN|out of range atoms|not finite|Too many.*neighbor bins|non-finite", BLOW_UP),
    (r"(not enough|out of) memory|bad_alloc|([Cc]annot |can't |[Ff]ailed to (re)?)allocate|Killed", MEMORY),
    (
        r"Neighbor list overflow",
        "Add a line to in.lammps and run it by hand: neigh_modify one 20000 page 200000. So many neighbours mean that "
        "atoms are too dense, or the cutoff is long",
    ),
    (
        r"Unrecognized pair style|Unknown command: plugin",
        "This LAMMPS does not know pair_style mlip. Type: mlip doctor",
    ),
    (
        r"No space left on device|Disk quota exceeded",
        "The disk is full. Write fewer frames (the line that begins with `dump` in in.lammps; the reporters or "
        "interval in run.py), or name a folder on another disk: -o DIR",
    ),
    (
        r"MPI_Abort|MPI_Init|hydra|mpiexec",
        "Try one rank (--ranks 1). If that runs, MPI is not in order on this machine. Type: mlip doctor",
    ),
)
"""Patterns, the likeliest cause first, and what to do."""


def remedy(message: str) -> str:
    """What to do about an engine's message.

    Messages of mlip-deploy itself end with the line to type; for what is unknown, where to look.
    """
    for pattern, text in REMEDIES:
        if re.search(pattern, message):
            return text
    return (
        "If the message does not say what to do: the whole output of the engine is in output.txt, and mlip doctor says "
        "whether this machine is in order"
    )

"""`mlip bench`: how fast an artifact runs, beside another artifact or the framework that it came from.

Two things are compared only when they were measured alternately, pair by pair, in one run: a ratio then survives
another program on the machine.
"""

ENGINES = ("ase", "lammps", "openmm")
"""What can be measured."""
ACCELERATORS = {
    "cueq": ("cuequivariance_torch", "pip install cuequivariance-torch==0.9.1 cuequivariance-ops-torch-cu13==0.9.1"),
    "flash": ("flashTP_e3nn", "pip install git+https://github.com/SNU-ARC/flashTP"),
    "oeq": ("openequivariance", "pip install openequivariance"),
}
"""Packages that frameworks put in place of their own layers: what is imported, and the line to type without it."""

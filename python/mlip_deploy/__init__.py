"""Foundation interatomic potentials as one file, served in LAMMPS, OpenMM and ASE.

The pieces, in the order that data passes through them: `export` writes an artifact, `artifact` and `contract`
read it, `mlip_deploy.ase`, `mlip_deploy.openmm` and LAMMPS's `pair_style mlip` run it, `engines` runs one
structure in any of them with one result type, `validate` compares. Å, eV and eV/Å throughout.
"""

from importlib.metadata import version

__version__ = version("mlip-deploy")

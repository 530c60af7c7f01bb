"""From a structure to a run: folders with inputs for LAMMPS, OpenMM and ASE."""

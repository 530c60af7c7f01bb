"""From a structure to a run: input files for LAMMPS, OpenMM and ASE, made, run and reported."""

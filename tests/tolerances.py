"""Bounds that tests use beside those of the package (mlip_deploy.artifact.tolerances), each with its reason."""

# float64 sums of a few hundred terms of order 1 eV in another order
FLOAT64_SUM = 1e-10
# LAMMPS and OpenMM turn a triclinic cell, and the models' constants are stored in float32 (see artifact/tolerances.py)
FLOAT64_ROTATED = 1e-8
# Central differences with a step of 1e-4 Å: the error is step² times a third derivative of order 10 eV/Å³ per Å²
FINITE_DIFFERENCE = 1e-6
# A test of forces or stresses proves nothing where they are this small (eV/Å; eV/Å³)
FORCE_SIGNAL = 0.1
STRESS_SIGNAL = 1e-3
# Virials of atoms in float64, relative to the largest: sums of thousands of terms in another order, and LAMMPS's files
HEAT_FLUX_FLOAT64 = 1e-8
# The same in float32: roundings of moments, which grow with the extent of the system
HEAT_FLUX_FLOAT32 = 1e-4
# Verlet's own error with a step of 0.05 fs over 4 fs, a fourth of what it is with 0.1 fs
HEAT_FLUX_OF_MOTION = 1e-4
# A test of virials (eV) or fluxes (eV Å over a time) proves nothing where the largest is this small
HEAT_FLUX_SIGNAL = 0.1
# Features that enter a read-out, in float64: sums of products of numbers of order 1 in another order
FEATURES_FLOAT64 = 1e-9
# Grades in float64, relative: what is outside of the axes is a difference of squares
GRADES_FLOAT64 = 1e-6
# Uncertainties, relative: the record holds a matrix in float32 whose singular values differ by up to a thousand
UNCERTAINTY = 1e-3

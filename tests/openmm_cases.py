"""Structures, platforms and short spellings that the OpenMM tests share."""

import numpy as np
import openmm
import pytest
from ase.build import bulk, molecule
from openmm import unit

from mlip_deploy.engines.openmm_box import reduced_box
from mlip_deploy.openmm import system_of

KJ = unit.kilojoule_per_mole


def rocksalt():
    """A sheared NaCl cell smaller than twice the cutoff, turned so that OpenMM takes its box as it is."""
    atoms = bulk("NaCl", "rocksalt", a=5.2, cubic=True)
    atoms.set_cell(atoms.cell.array @ [[1, 0.1, 0.05], [0, 1, -0.1], [0, 0, 1.02]], scale_atoms=True)
    atoms.positions += np.random.default_rng(1).normal(scale=0.12, size=atoms.positions.shape)
    box, rotation = reduced_box(atoms)
    atoms.positions, atoms.cell = atoms.positions @ rotation.T, box
    return atoms


def ethanol():
    atoms = molecule("CH3CH2OH")
    atoms.positions += np.random.default_rng(2).normal(scale=0.05, size=atoms.positions.shape)
    return atoms


def platform_of(name="Reference"):
    return openmm.Platform.getPlatformByName(name)


def has_platform(name):
    return name in {openmm.Platform.getPlatform(k).getName() for k in range(openmm.Platform.getNumPlatforms())}


def need_platform(name):
    """Skip the test that calls it where OpenMM lacks a platform."""
    if not has_platform(name):
        pytest.skip(f"no {name} platform. On Debian: apt-get install pocl-opencl-icd ocl-icd-libopencl1")


def context_of(system, atoms, platform="Reference", integrator=None, **properties):
    """A Context at the positions of ASE atoms."""
    integrator = integrator or openmm.VerletIntegrator(0.001)
    context = openmm.Context(system, integrator, platform_of(platform), properties)
    context.setPositions(atoms.positions * 0.1)
    return context


def context_for(path, atoms, platform="Reference", integrator=None, **options):
    """A Context of ASE atoms with one MLIPForce."""
    return context_of(system_of(atoms, path, **options), atoms, platform, integrator)


def energy_of(context, groups=-1):
    """kJ/mol"""
    return context.getState(energy=True, groups=groups).getPotentialEnergy().value_in_unit(KJ)


def forces_of(context, groups=-1):
    """[n, 3] kJ/mol/nm"""
    return context.getState(forces=True, groups=groups).getForces(asNumpy=True).value_in_unit(KJ / unit.nanometer)

"""Evaluate structures through openmmtorch; run by test_openmmtorch.py with a Python that has no mlip-deploy.

torchforce_cases.py CASES.json RESULTS.json
Each case: file, outputs_forces, platform, positions [n][3] nm, box [3][3] nm or null. Each result: energy in kJ/mol,
forces in kJ/mol/nm.
"""

import json
import sys

import torch  # noqa: F401  before openmmtorch, which finds CUDA's libraries only through it

# isort: split
import openmm
import openmmtorch
from openmm import unit

with open(sys.argv[1]) as file:
    cases = json.load(file)
results = []
for case in cases:
    system = openmm.System()
    for _ in case["positions"]:
        system.addParticle(1.0)
    force = openmmtorch.TorchForce(case["file"])
    force.setOutputsForces(case["outputs_forces"])
    if case["box"] is not None:
        system.setDefaultPeriodicBoxVectors(*(openmm.Vec3(*row) for row in case["box"]))
        force.setUsesPeriodicBoundaryConditions(True)
    system.addForce(force)
    platform = openmm.Platform.getPlatformByName(case["platform"])
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions([openmm.Vec3(*row) for row in case["positions"]])
    state = context.getState(energy=True, forces=True)
    results.append(
        {
            "energy": state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole),
            "forces": state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer).tolist(),
        }
    )
with open(sys.argv[2], "w") as file:
    json.dump(results, file)

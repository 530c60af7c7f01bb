"""`--device` of validation reaches every place where a model runs.

A GPU that is not there is refused by whoever is asked to use it.
"""

import numpy as np
import pytest
from ase.build import bulk
from conftest import mlip
from openmm_cases import need_platform
from tolerances import FLOAT64_SUM, FORCE_SIGNAL

from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.comparison.cross import cross_predict
from mlip_deploy.engines import openmm as openmm_engine
from mlip_deploy.errors import MLIPError
from mlip_deploy.validation import fidelity
from mlip_deploy.validation.case import Context, Hardware
from mlip_deploy.validation.physics import dynamics, tools
from mlip_deploy.validation.properties.dynamics import simulate
from mlip_deploy.validation.properties.recipe import Setting

ABSENT = Hardware(device="cuda:99")


def silent(message):
    pass


def copper():
    atoms = bulk("Cu", cubic=True, a=3.7)
    atoms.rattle(0.1, seed=1)
    return atoms


def what_it_says(run):
    """The error, or the outcome of a check that failed."""
    try:
        return str(run())
    except MLIPError as error:
        return str(error)


@pytest.mark.parametrize("engine", ["ase", "lammps", "openmm"])
def test_a_gpu_that_is_not_there(engine, pair_potential, tmp_path):
    artifact = Artifact(pair_potential)
    context = Context(artifact=artifact, engine=engine, directory=tmp_path, hardware=ABSENT)
    setting = Setting(artifact, engine, tmp_path / "setting", ABSENT, silent)
    (replay, *_) = [case for case in fidelity.cases(context) if case.name.startswith(engine)]
    places = {
        "frames": lambda: tools.evaluate(context, [copper()]),
        "a calculator": lambda: setting.calculator().get_potential_energy(copper()),
        "a trajectory": lambda: simulate(setting, copper(), 300.0, 1.0, 2, 1),
        "fidelity": lambda: replay.run(context, silent),
        "sampling": lambda: cross_predict([artifact] * 2, engine, [("copper", copper())], tmp_path, ABSENT, silent),
    }
    if engine != "ase":
        simulated = dynamics.simulate_lammps if engine == "lammps" else dynamics.simulate_openmm
        places["constant energy"] = lambda: simulated(context, copper(), 0.001, 2)
    said = {name: what_it_says(run) for name, run in places.items()}
    assert [name for name, text in said.items() if "cuda:99" not in text] == [], said


@pytest.mark.parametrize("command", ["validate", "compare"])
def test_a_device_that_is_none(command, pair_potential, tmp_path):
    files = [pair_potential] * (2 if command == "compare" else 1)
    more = ["--suite", "physics"] if command == "validate" else []
    done = mlip(command, *files, *more, "--device", "gpu", "-o", tmp_path / "out")
    assert done.returncode == 2
    assert "device: 'gpu' is not one of cpu, cuda, cuda:N, auto" in " ".join(done.stderr.split())


def test_openmm_platforms_compute_in_double_precision(pair_potential):
    atoms = copper()
    need_platform("OpenCL")
    reference = openmm_engine.evaluate(pair_potential, atoms)
    found = openmm_engine.evaluate(pair_potential, atoms, platform="OpenCL")
    np.testing.assert_allclose(found.forces, reference.forces, atol=FLOAT64_SUM)
    assert np.abs(found.forces).max() > FORCE_SIGNAL
    assert found.energy == pytest.approx(reference.energy, abs=FLOAT64_SUM)

"""Molecular dynamics in an engine: dynamics.py lammps|openmm. The environment as for steps.py."""

from __future__ import annotations

import os
import sys
import time

from mlip_deploy.bench.measure import lammps_samples
from mlip_deploy.bench.systems import build_system

MODEL, DEVICE = os.environ["MODEL"], os.environ["DEV"]
SIZES = [int(size) for size in os.environ["SIZES"].split(",")]
CUDA = DEVICE == "cuda"


def lammps(size: int, ranks: int) -> str:
    steps = 2 if not CUDA else 40 if size < 5000 else 12
    (sample,) = lammps_samples(build_system(f"si{size}"), [MODEL], 1, ranks, steps, DEVICE)
    outside = "" if sample.outside is None else f", outside the model {100 * sample.outside:.1f} %"
    return f"{1e3 * sample.wall:.2f} ms a step{outside}"


def openmm(size: int, platform: str) -> str:
    import openmm
    from openmm.unit import kilojoule_per_mole

    from mlip_deploy.engines.openmm import context_of
    from mlip_deploy.engines.openmm_box import in_reduced_box

    atoms, _ = in_reduced_box(build_system(f"si{size}"))
    context = context_of(atoms, MODEL, openmm.VerletIntegrator(0.001), platform=platform, device=DEVICE)
    context.setVelocitiesToTemperature(300, 1)

    def energy() -> float:
        state = context.getState(energy=True)
        return float((state.getPotentialEnergy() + state.getKineticEnergy()).value_in_unit(kilojoule_per_mole))

    integrator, steps = context.getIntegrator(), 30 if CUDA else 2
    integrator.step(3)
    before, start = energy(), time.perf_counter()
    integrator.step(steps)
    after, seconds = energy(), (time.perf_counter() - start) / steps
    return f"{1e3 * seconds:.2f} ms a step, drift {10.364 * (after - before) / size:.4f} meV/atom"


def main() -> None:
    if sys.argv[1] == "lammps":
        cases = [(f"LAMMPS si{size}, {ranks} rank(s)", lammps, size, ranks) for size in SIZES[:3] for ranks in (1, 2)]
    else:
        platforms = ("CUDA", "Reference") if CUDA else ("Reference",)
        cases = [(f"OpenMM {one} si{size}", openmm, size, one) for size in SIZES[:2] for one in platforms]  # type: ignore[misc]
    failed = False
    for name, run, *arguments in cases:
        try:
            print(f"RESULT {name}: {run(*arguments)}", flush=True)
        except Exception as error:  # the others are still worth knowing
            failed = True
            print(f"RESULT {name}: FAILED {type(error).__name__}: {str(error)[-300:]}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()

"""One statement for tests that hold a file, or the model that it will have, to its original."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from tolerances import FLOAT64_SUM, FORCE_SIGNAL

from mlip_deploy.exporters.interface import Adapted
from mlip_deploy.exporters.parts import graph
from mlip_deploy.validation.fidelity import FidelityReport, check


def assert_passes(path: Path, engines: Sequence[str], ranks: Sequence[int]) -> FidelityReport:
    """`mlip check` passes; the failure names what does not, structure by structure."""
    report = check(path, engines, ranks)
    failed = [f"{c.engine} {c.ranks} {c.structure}: {c.reason}" for c in report.comparisons if c.verdict == "fail"]
    assert report.passed, [*failed, report.parts]
    return report


def assert_equals_the_original(adapted: Adapted, atoms: Atoms, signal: float | None = FORCE_SIGNAL) -> None:
    """Atomic energies and forces in float64, as TorchScript, without the way through a file.

    Args:
        signal: eV/Å, which the largest force exceeds; None where forces may vanish.
    """
    truth = adapted.original.float64(atoms)
    model = adapted.scripted(adapted.energy_model(torch.float64).eval())
    types, edges, vectors = graph(atoms, adapted.elements, adapted.cutoff, torch.float64)
    vectors.requires_grad_(True)
    energies = model(types, len(atoms), edges, vectors)
    np.testing.assert_allclose(energies.detach(), truth.atomic_energies, rtol=0, atol=FLOAT64_SUM)
    assert abs(float(energies.detach().sum()) - truth.energy) <= FLOAT64_SUM
    (gradient,) = torch.autograd.grad(energies.sum(), vectors)
    forces = torch.zeros(len(atoms), 3, dtype=torch.float64)
    forces = forces.index_add(0, edges[0], gradient).index_add(0, edges[1], -gradient)
    np.testing.assert_allclose(forces, truth.forces, rtol=0, atol=FLOAT64_SUM)
    assert signal is None or np.abs(truth.forces).max() >= signal

"""Cross-prediction: model i on structures that model j sampled, and how far the models disagree on every atom.

After Niblett et al., "Transferability of datasets between machine-learning interaction potentials"
(arXiv:2409.05590): a model that is accurate where it goes itself may fail where another one goes. Without a label the
sampling model's own forces stand for the truth of its samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.collections import dcdft
from pydantic import BaseModel

from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.engines import evaluator
from mlip_deploy.errors import MLIPError
from mlip_deploy.progress import Progress
from mlip_deploy.result import Array, Result
from mlip_deploy.validation.case import Hardware
from mlip_deploy.validation.properties.dynamics import simulate
from mlip_deploy.validation.properties.eos import reference_crystal
from mlip_deploy.validation.properties.recipe import Setting

DEFAULT = ("Si", "Cu", "Na", "Al", "C")
MOST, ATOMS = 2, 16
"""crystals that are sampled where the user names no structures, and the least number of atoms in each"""
TEMPERATURE, TIMESTEP, STEPS, EVERY = 600.0, 1.0, 100, 20  # K, fs


class Disagreement(BaseModel):
    """Of one element over all sampled structures."""

    element: str
    atoms: int
    mean: float
    """eV/Å: standard deviation of the force vector over the models, mean over atoms"""
    largest: float
    """eV/Å"""
    where: str
    """structure and atom of the largest"""


class CrossPrediction(BaseModel):
    forces: list[list[float]]
    """[i][j] eV/Å: mean absolute difference of force components of model i and model j on what j sampled"""
    energies: list[list[float]]
    """[i][j] meV/atom: standard deviation of E_i - E_j over those structures, which leaves out a constant"""
    structures: list[str]
    disagreement: list[Disagreement]


@dataclass(frozen=True)
class Sample:
    name: str
    atoms: Atoms
    sampler: int


def start_structures(artifacts: Sequence[Artifact], elements: Sequence[str]) -> list[tuple[str, Atoms]]:
    """Crystals of elements that every model knows, of at least `ATOMS` atoms."""
    common = set.intersection(*(set(artifact.contract.elements) for artifact in artifacts)) & set(dcdft.names)
    if elements and not set(elements) & common:
        raise MLIPError(f"no model-wide known element among {', '.join(elements)}. Name others: --elements …")
    chosen = [symbol for symbol in elements if symbol in common] or [symbol for symbol in DEFAULT if symbol in common]
    chosen = (chosen or sorted(common))[:MOST]
    if not chosen:
        raise MLIPError("the models have no element in common: give structures that all know: --structures FILE")
    structures = []
    for symbol in chosen:
        crystal = reference_crystal(symbol)
        repeats = int(np.ceil((ATOMS / len(crystal)) ** (1 / 3)))
        structures.append((symbol, crystal.repeat(repeats)))
    return structures


def cross_predict(
    artifacts: Sequence[Artifact],
    engine: str,
    starts: Sequence[tuple[str, Atoms]],
    directory: Path,
    hardware: Hardware,
    progress: Progress,
) -> CrossPrediction:
    """Sample each start with each model by MD in the engine, and evaluate every model on every sample.

    Args:
        starts: named structures, periodic in all directions.
    """
    samples: list[Sample] = []
    for j, artifact in enumerate(artifacts):
        setting = Setting(artifact, engine, directory / f"sampled-by-{j}", hardware, progress)
        for name, start in starts:
            progress(f"{engine}: sampling {name} with {artifact.path.name}")
            trajectory = simulate(setting, start, TEMPERATURE, TIMESTEP, STEPS, EVERY)
            for number, positions in enumerate(trajectory[1:], start=1):
                atoms = start.copy()
                atoms.positions = positions
                samples.append(Sample(f"{name}, frame {number} of {artifact.path.name}", atoms, j))
    evaluate = evaluator(engine)
    results: list[list[Result]] = []
    for artifact in artifacts:
        progress(f"{engine}: {artifact.path.name} on {len(samples)} structures")
        results.append([evaluate(artifact.path, sample.atoms, **hardware._asdict()) for sample in samples])
    forces, energies = _matrices(samples, results)
    return CrossPrediction(
        forces=forces,
        energies=energies,
        structures=[sample.name for sample in samples],
        disagreement=_disagreement(samples, results),
    )


def _matrices(samples: Sequence[Sample], results: Sequence[Sequence[Result]]) -> tuple[list[list[float]], ...]:
    n = len(results)
    forces, energies = np.zeros((n, n)), np.zeros((n, n))
    for j in range(n):
        own = [k for k, sample in enumerate(samples) if sample.sampler == j]
        for i in range(n):
            pairs = [(results[i][k], results[j][k]) for k in own]
            forces[i, j] = np.mean(np.concatenate([np.abs(a.forces - b.forces).ravel() for a, b in pairs]))
            # each start has a constant of its own where the models' frames differ
            by_start: dict[str, list[float]] = {}
            for k, (a, b) in zip(own, pairs, strict=True):
                start = samples[k].name.split(",")[0]
                by_start.setdefault(start, []).append((a.energy - b.energy) / len(samples[k].atoms))
            energies[i, j] = 1000.0 * np.sqrt(np.mean([np.var(values) for values in by_start.values()]))
    return forces.tolist(), energies.tolist()


def _disagreement(samples: Sequence[Sample], results: Sequence[Sequence[Result]]) -> list[Disagreement]:
    by_element: dict[str, list[tuple[float, str]]] = {}
    for k, sample in enumerate(samples):
        stacked: Array = np.array([model[k].forces for model in results])
        deviation = np.sqrt(((stacked - stacked.mean(axis=0)) ** 2).sum(axis=2).mean(axis=0))
        for atom, symbol in enumerate(sample.atoms.get_chemical_symbols()):
            by_element.setdefault(symbol, []).append((float(deviation[atom]), f"{sample.name}, atom {atom}"))
    table = []
    for symbol, values in sorted(by_element.items()):
        largest, where = max(values)
        mean = float(np.mean([value for value, _ in values]))
        table.append(Disagreement(element=symbol, atoms=len(values), mean=mean, largest=largest, where=where))
    return table

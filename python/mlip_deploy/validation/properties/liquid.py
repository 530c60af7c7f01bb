"""Structure and diffusion of a liquid: molecular dynamics run by the engine itself, against ab initio MD."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from mlip_deploy.reference_data.readers import Labelled, read_set
from mlip_deploy.report.content import Curve, Series
from mlip_deploy.result import Array
from mlip_deploy.validation.properties.dynamics import simulate
from mlip_deploy.validation.properties.recipe import Measurement, Metric, Recipe, Setting, UnfinishedError, of_elements

REFERENCE = "PBE ab initio MD, Zuo et al., J. Phys. Chem. A 124, 731 (2020)"
# temperature in K and the words by which the set's frames of one cell and temperature are found
STATES = {"Li": (907.0, "normal structure at 907 K"), "Si": (3374.0, "normal structure at 3374 K")}
TIMESTEP, STEPS, EVERY = 2.0, 500, 10  # fs
BIN = 0.1  # Å
SMOOTHING = 3  # bins


def measure(symbol: str, setting: Setting) -> Measurement:
    temperature, words = STATES[symbol]
    frames = [frame for frame in read_set(f"mlearn-{symbol}") if words in frame.name]
    start = frames[0].atoms
    trajectory = simulate(setting, start, temperature, TIMESTEP, STEPS, EVERY)
    if not np.isfinite(trajectory).all():
        raise UnfinishedError("the positions are not finite any more")
    settled = trajectory[len(trajectory) // 5 :]
    r, label = radial_distribution([frame.atoms for frame in frames])
    _, model = radial_distribution([_moved(start, positions) for positions in settled])
    squares = mean_square_displacement(settled)
    times = np.arange(len(squares)) * EVERY * TIMESTEP / 1000.0
    diffusion = float(np.polyfit(times[len(times) // 2 :], squares[len(times) // 2 :], 1)[0]) / 6.0
    peaks = [float(r[np.argmax(np.convolve(g, np.ones(SMOOTHING) / SMOOTHING, "same"))]) for g in (model, label)]
    return Measurement(
        values={
            "peak": peaks[0] - peaks[1],
            "difference": float(np.trapezoid(np.abs(model - label), r) / np.trapezoid(label, r)),
            "diffusion": diffusion,
        },
        curves=[
            Curve(
                title=f"{symbol}: radial distribution at {temperature:.0f} K",
                x_label="r / Å",
                y_label="g(r)",
                series=[
                    Series(label="model", x=r.tolist(), y=model.tolist()),
                    Series(label="ab initio MD", x=r.tolist(), y=label.tolist()),
                ],
            )
        ],
        notes=[_note(symbol, frames, diffusion)],
    )


def _note(symbol: str, frames: list[Labelled], diffusion: float) -> str:
    return (
        f"{symbol}: {STEPS * TIMESTEP / 1000:.1f} ps of {len(frames[0].atoms)} atoms against {len(frames)} ab initio "
        f"frames; D = {diffusion:.2f} Å²/ps, short for a diffusion coefficient: of use to compare engines and models"
    )


def _moved(atoms: Atoms, positions: Array) -> Atoms:
    moved: Atoms = atoms.copy()
    moved.positions = positions
    return moved


def radial_distribution(frames: list[Atoms]) -> tuple[Array, Array]:
    """g(r) of one-component frames of one cell: bin centres (Å) up to half of the shortest height, and g."""
    cell = frames[0].cell
    reach = 0.5 * cell.volume / max(np.linalg.norm(np.cross(cell[k - 2], cell[k - 1])) for k in range(3))
    edges = np.arange(0.0, reach, BIN)
    counts = np.zeros(len(edges) - 1)
    n = len(frames[0])
    for atoms in frames:
        distances = atoms.get_all_distances(mic=True)[np.triu_indices(n, 1)]
        counts += np.histogram(distances, edges)[0]
    shells = 4.0 / 3.0 * np.pi * np.diff(edges**3)
    ideal = 0.5 * n * (n - 1) / cell.volume * shells * len(frames)
    return 0.5 * (edges[1:] + edges[:-1]), counts / ideal


def mean_square_displacement(trajectory: Array) -> Array:
    """Å² against lag time, averaged over time origins and atoms, of unwrapped positions [t, n, 3] less their drift."""
    centred = trajectory - trajectory.mean(axis=1, keepdims=True)
    lags = range(1, len(centred) // 2 + 1)
    return np.array([0.0, *(float(((centred[k:] - centred[:-k]) ** 2).sum(axis=2).mean()) for k in lags)])


RECIPE = Recipe(
    name="liquid",
    purpose="does molecular dynamics in the engine keep a liquid as it is?",
    inputs=f"a frame of the set mlearn, NVT at its temperature, {STEPS} steps of {TIMESTEP} fs, a fifth to settle",
    metrics={
        "peak": Metric(
            "first peak of g(r), difference", "Å", 0.2, f"{REFERENCE}; threshold: two bins, few frames in the reference"
        ),
        "difference": Metric("∫|g - g_ref| dr / ∫ g_ref dr", "", None, REFERENCE),
        "diffusion": Metric(
            "diffusion coefficient", "Å²/ps", None, "no reference at this volume; reported, not judged"
        ),
    },
    materials=of_elements(("Li",), list(STATES)),
    elements_of=lambda symbol: {symbol},
    measure=measure,
)

"""Uncertainties of energies: the variance of a linear read-out (last-layer prediction rigidity), calibrated.

F. Bigi, S. Chong, M. Ceriotti, F. Grasselli, Mach. Learn.: Sci. Technol. 5, 045018 (2024): σ² = α² fᵀ (FᵀF + ς²)⁻¹ f
with the features f of a structure, summed over its atoms, and those F of the frames; each frame counts by its number
of atoms. α is set by frames that were left out.
"""

from __future__ import annotations

import base64

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from mlip_deploy.artifact.domain_record import Uncertainty, float32_bytes
from mlip_deploy.reference_data.statistics import fit_shifts
from mlip_deploy.result import Array

FOLDS = 5
"""parts of the frames, each of which is left out once"""
LEAST_FRAMES = 20
"""with an energy: fewer calibrate nothing"""
MOST_FEATURES = 512
"""the matrix has their square"""
RIDGE = 1e-6
"""ς², relative to the largest eigenvalue of FᵀF"""


def uncertainty_of(
    symbols: npt.NDArray[np.str_], features: Array, frames: npt.NDArray[np.int64], differences: Array
) -> Uncertainty | None:
    """
    Args:
        symbols, features, frames: [n], [n, n_features], [n] of atoms, see `domain.fit.Environments`.
        differences: [number of frames] eV, label minus model; NaN without label.

    Returns:
        None for too few labels, too many features, or labels without errors.
    """
    labelled = np.flatnonzero(np.isfinite(differences))
    if len(labelled) < LEAST_FRAMES or features.shape[1] > MOST_FEATURES:
        return None
    sums = np.stack([features[frames == k].sum(axis=0) for k in labelled])
    of_frames = [symbols[frames == k].tolist() for k in labelled]
    sizes = np.array([len(of_frame) for of_frame in of_frames], dtype=float)
    parts = np.arange(len(labelled)) % FOLDS
    errors, rigidities = np.empty(len(labelled)), np.empty(len(labelled))
    for part in range(FOLDS):
        out = parts == part
        kept = np.flatnonzero(~out)
        shifts = fit_shifts([of_frames[k] for k in kept], differences[labelled][kept])
        for k in np.flatnonzero(out):
            shift = sum(shifts.get(symbol, np.nan) for symbol in of_frames[k])
            errors[k] = abs(differences[labelled[k]] - shift)
        rigidities[out] = np.linalg.norm(sums[out] @ _factor(sums[kept], sizes[kept]).T, axis=1)
    known = np.isfinite(errors)  # an element may occur in one part alone
    errors, rigidities = errors[known], rigidities[known]
    scale = float(np.sqrt(np.mean((errors / rigidities) ** 2))) if len(errors) else 0.0
    if not scale > 0.0 or np.ptp(errors) == 0.0:
        return None
    return Uncertainty(
        frames=len(errors),
        scale=scale,
        correlation=float(spearmanr(rigidities, errors).statistic),
        within_one=float((errors < scale * rigidities).mean()),
        within_two=float((errors < 2.0 * scale * rigidities).mean()),
        matrix=base64.b64encode(float32_bytes(_factor(sums, sizes))).decode(),
    )


def _factor(sums: Array, sizes: Array) -> Array:
    """R with RᵀR = (FᵀF + ς²)⁻¹, from features summed over the atoms of frames, and how many atoms these have."""
    of_atoms = sums / np.sqrt(sizes)[:, None]
    values, vectors = np.linalg.eigh(of_atoms.T @ of_atoms)
    factor: Array = (vectors / np.sqrt(values.clip(0.0) + RIDGE * values[-1])).T
    return factor

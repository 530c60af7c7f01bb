"""The space in which the environments of an element are compared, from their features.

Whitened principal axes, one coordinate more for what lies outside of them, and the centres of clusters in it: a grade
is the distance from the nearest centre. docs/trust.md shows how this form ranks errors beside a Mahalanobis distance,
which is the same with one centre.
"""

from __future__ import annotations

import numpy as np

from mlip_deploy.artifact.domain_record import ElementArrays
from mlip_deploy.result import Array

AXES = 32
POINTS = 200
FLOOR = 1e-3
"""of a variance, relative to the largest one: axes along which almost nothing varies are not blown up without bound"""
ROUNDING = 1e-6
"""of a feature, relative to the largest: what varies less is one environment"""
MOST_ENVIRONMENTS = 20_000
"""of an element, that the space is made from; of more a random choice"""
ROUNDS = 10
"""of Lloyd's algorithm"""


def space_of(features: Array, axes: int = AXES, points: int = POINTS) -> ElementArrays | None:
    """The space of the environments of one element.

    Args:
        features: [n, n_features], at least two.
        axes, points: at most so many; there are four environments to a point at least.

    Returns:
        None where all environments are the same.
    """
    random = np.random.default_rng(0)
    if len(features) > MOST_ENVIRONMENTS:
        features = features[random.permutation(len(features))[:MOST_ENVIRONMENTS]]
    mean = features.mean(axis=0)
    x = features - mean
    variances, vectors = np.linalg.eigh(x.T @ x / len(x))
    variances, vectors = variances[::-1].clip(0.0), vectors[:, ::-1]
    if variances[0] <= (ROUNDING * np.abs(features).max()) ** 2:
        return None
    n = min(axes, features.shape[1] - 1)
    along = vectors[:, :n].T
    floor = FLOOR * variances[0]
    scales = 1.0 / np.sqrt(np.append(variances[:n], variances[n:].sum()) + floor)
    space = ElementArrays(mean, along, scales, np.zeros((1, n + 1)))
    z = space.coordinates(features)
    return ElementArrays(mean, along, scales, _centres(z, max(1, min(points, len(z) // 4)), random))


def _centres(z: Array, n: int, random: np.random.Generator) -> Array:
    """Of n clusters of points [n_points, width], by Lloyd's algorithm."""
    centres = z[random.permutation(len(z))[:n]]
    for _ in range(ROUNDS):
        nearest = ((centres**2).sum(1) - 2.0 * z @ centres.T).argmin(axis=1)
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, z)
        counts = np.bincount(nearest, minlength=n)
        centres = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centres)
    return centres

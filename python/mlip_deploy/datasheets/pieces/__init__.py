"""The pieces of evidence, in the order of a sheet."""

from __future__ import annotations

from mlip_deploy.datasheets.pieces import data, definition, long_range, new_physics, quality, scale
from mlip_deploy.datasheets.pieces.piece import Piece

PIECES: dict[str, Piece] = {
    piece.name: piece
    for module in (definition, data, long_range, new_physics, scale, quality)
    for piece in module.PIECES
}
"""By name."""

"""What a target raises where it does not answer."""

from __future__ import annotations

from mlip_deploy.errors import MLIPError


class RefusedError(MLIPError):
    """An engine stopped with a message instead of an answer."""

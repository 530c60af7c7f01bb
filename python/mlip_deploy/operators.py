"""Loads the core library, which registers `torch.ops.mlip.*`: needed before a model that uses them is scripted."""

from __future__ import annotations

import torch

from mlip_deploy.libraries import library


def load_operators() -> None:
    """Idempotent: the library registers its operators once per process."""
    torch.ops.load_library(str(library()))  # type: ignore[no-untyped-call]

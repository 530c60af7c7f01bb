"""Loads the core library, which registers `torch.ops.mlip.*`: needed before a model that uses them is scripted."""

from __future__ import annotations

from pathlib import Path

import torch

LIBRARY_DIRECTORY = Path(__file__).parent / "lib"


def load_operators() -> None:
    """Idempotent: the library registers its operators once per process."""
    torch.ops.load_library(str(LIBRARY_DIRECTORY / "libmlip.so"))  # type: ignore[no-untyped-call]

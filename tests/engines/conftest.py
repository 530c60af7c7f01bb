"""Artifacts of the toy models, for tests of what an engine does around a model."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def toy_local(artifacts) -> Path:
    import toy_models

    return toy_models.export(artifacts.directory / "toy-local.mlip.pt", "local")


@pytest.fixture(scope="session")
def toy_halo(artifacts) -> Path:
    import toy_models

    return toy_models.export(artifacts.directory / "toy-halo.mlip.pt", "halo")

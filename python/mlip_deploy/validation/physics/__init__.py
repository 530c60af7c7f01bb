"""Physics: what every potential must obey, shown for the served file in the engine where it will run."""

from __future__ import annotations

from mlip_deploy.validation.case import Case, Context
from mlip_deploy.validation.physics import derivatives, dimers, dynamics, elements, extent, symmetries


def cases(context: Context) -> list[Case]:
    return [
        *derivatives.cases(context),
        *symmetries.cases(context),
        *extent.cases(context),
        *elements.cases(context),
        *dimers.cases(context),
        *dynamics.cases(context),
    ]

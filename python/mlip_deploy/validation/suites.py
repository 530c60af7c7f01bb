"""The validation suites by name. Light: the command line names them in its help."""

from __future__ import annotations

from mlip_deploy.artifact.validation_record import REQUIRED_SUITES

SUITES = {
    "fidelity": "mlip_deploy.validation.fidelity",
    "physics": "mlip_deploy.validation.physics",
    "reference": "mlip_deploy.validation.reference.suite",
    "properties": "mlip_deploy.validation.properties",
    "cost": "mlip_deploy.validation.cost",
}
"""Name of each suite, and the module whose `cases(context)` are the suite's; it is imported when it is asked for."""
MEASURED = ("cost",)
"""Suites whose numbers differ from run to run: they judge nothing, and timing.json holds their outcomes."""
DEFAULT_SUITES = (*REQUIRED_SUITES, *MEASURED)

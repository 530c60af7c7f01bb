"""Properties: what a model is used for, measured in the engine and compared with published references."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from pathlib import Path

from mlip_deploy.errors import MLIPError
from mlip_deploy.progress import Progress
from mlip_deploy.reference_data.datasets import MissingDataError
from mlip_deploy.report.content import Verdict
from mlip_deploy.validation.case import Case, Check, Context, Outcome
from mlip_deploy.validation.properties.recipe import Measurement, Recipe, Setting, UnfinishedError

SUITE = "properties"


def cases(context: Context) -> list[Case]:
    """One case for each recipe and material, the package's recipes first, then those of `context.recipes`."""
    return [case for recipe in recipes(context.recipes) for case in _cases_of(recipe, context)]


def recipes(folder: Path | None = None) -> list[Recipe]:
    """The package's recipes and those of a folder, sorted by file name.

    Raises:
        MLIPError: for a folder that is not there and files without a recipe.
    """
    found = []
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        if recipe := getattr(importlib.import_module(f"{__name__}.{module.name}"), "RECIPE", None):
            found.append(recipe)
    if folder is None:
        return found
    files = sorted(folder.glob("*.py"))
    if not files:
        raise MLIPError(f"'{folder}' holds no recipes (*.py). Start from a copy: cp {__path__[0]}/eos.py {folder}/")
    return found + [_load(file) for file in files]


def _load(file: Path) -> Recipe:
    spec = importlib.util.spec_from_file_location(f"mlip_recipe_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a user's file raises
        raise MLIPError(f"the recipe '{file}' does not load: {type(error).__name__}: {error}") from error
    if not isinstance(getattr(module, "RECIPE", None), Recipe):
        raise MLIPError(f"'{file}' defines no RECIPE = Recipe(…). Compare with {__path__[0]}/eos.py")
    return module.RECIPE  # type: ignore[no-any-return]


def _cases_of(recipe: Recipe, context: Context) -> list[Case]:
    try:
        materials = recipe.materials(context.elements)
    except MissingDataError as error:
        return [_without_run(recipe, "not-tested", str(error))]
    known = set(context.artifact.contract.elements)
    possible = [material for material in materials if recipe.elements_of(material) <= known]
    if not possible:
        among = ", ".join(context.elements) or "what the model knows"
        return [_without_run(recipe, "not-applicable", f"has no material among {among}")]
    for package in recipe.packages:
        if importlib.util.find_spec(package) is None:
            raise MLIPError(f"the recipe {recipe.name} needs {package}. Type: pip install {package}")
    return [_case(recipe, material) for material in possible]


def _without_run(recipe: Recipe, verdict: Verdict, reason: str) -> Case:
    def run(context: Context, progress: Progress) -> Outcome:
        return _outcome(recipe, recipe.name, context, _unmeasured(recipe, "", verdict, reason))

    return Case(SUITE, recipe.name, recipe.purpose, run)


def _case(recipe: Recipe, material: str) -> Case:
    name = f"{recipe.name}-{material}".replace(" ", "-")

    def run(context: Context, progress: Progress) -> Outcome:
        if reason := _cannot(recipe, context):
            return _outcome(recipe, name, context, _unmeasured(recipe, material, "not-applicable", reason))
        progress(f"{context.engine}: {recipe.name} of {material}")
        setting = Setting(context.artifact, context.engine, context.directory / name, context.hardware, progress)
        try:
            measurement = recipe.measure(material, setting)
        except UnfinishedError as error:
            return _outcome(recipe, name, context, _unmeasured(recipe, material, "fail", str(error)))
        except MissingDataError as error:
            return _outcome(recipe, name, context, _unmeasured(recipe, material, "not-tested", str(error)))
        return _outcome(recipe, name, context, _checks(recipe, material, measurement), measurement)

    return Case(SUITE, name, recipe.purpose, run)


def _cannot(recipe: Recipe, context: Context) -> str:
    """What a recipe needs and the engine or the file does not give; "" where it can run."""
    if recipe.needs_stress and context.engine == "openmm":
        return "OpenMM gives no stress"
    if recipe.needs_heat_flux and context.engine == "openmm":
        return "OpenMM gives no heat flux"
    if recipe.needs_heat_flux and (reason := context.artifact.contract.inexact_heat_flux):
        return f"the heat flux is not exact: {reason}"
    return ""


def _checks(recipe: Recipe, material: str, measurement: Measurement) -> list[Check]:
    checks = []
    for key, value in measurement.values.items():
        metric = recipe.metrics[key]
        good = metric.threshold is None or abs(value) <= metric.threshold
        checks.append(
            Check(
                quantity=f"{material}: {metric.quantity}",
                value=value,
                unit=metric.unit,
                threshold=metric.threshold,
                source=metric.source,
                verdict="not-applicable" if metric.threshold is None else "pass" if good else "fail",
                reason="" if good else f"beyond ±{metric.threshold} {metric.unit}",
            )
        )
    return checks


def _unmeasured(recipe: Recipe, material: str, verdict: Verdict, reason: str) -> list[Check]:
    return [
        Check(
            quantity=f"{material}: {metric.quantity}" if material else metric.quantity,
            value=None,
            unit=metric.unit,
            threshold=metric.threshold,
            source=metric.source,
            verdict=verdict,
            reason=reason,
        )
        for metric in recipe.metrics.values()
    ]


def _outcome(
    recipe: Recipe, name: str, context: Context, checks: list[Check], measurement: Measurement | None = None
) -> Outcome:
    return Outcome(
        suite=SUITE,
        case=name,
        engine=context.engine,
        purpose=recipe.purpose,
        checks=checks,
        curves=measurement.curves if measurement else [],
        notes=[f"inputs: {recipe.inputs}", *(measurement.notes if measurement else [])],
    )

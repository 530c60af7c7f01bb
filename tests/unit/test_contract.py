"""Python and C++ read contracts by one table of rules, and serve the same versions."""

import json
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from mlip_deploy import _core
from mlip_deploy.artifact import contract as contract_module
from mlip_deploy.artifact.contract import Contract, Setting, parse_contract
from mlip_deploy.artifact.format import FEATURES, OPERATORS, SCHEMA_MAJOR, SCHEMA_MINOR
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.errors import MLIPError
from mlip_deploy.operators import load_operators

TABLE = json.loads((Path(__file__).parents[1] / "contracts.json").read_text())
BASE, CASES = TABLE["base"], TABLE["cases"]
READERS = pytest.mark.parametrize("read", [parse_contract, _core.check_contract], ids=["python", "c++"])


def merged(document, change):
    """JSON merge patch, RFC 7396."""
    if not isinstance(change, dict):
        return change
    result = dict(document) if isinstance(document, dict) else {}
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


# ---- the table ----------------------------------------------------------------------------------------------------


def test_every_case_has_its_name():
    assert len({case["case"] for case in CASES}) == len(CASES)


@READERS
@pytest.mark.parametrize("case", CASES, ids=[case["case"] for case in CASES])
def test_rule(case, read):
    text = json.dumps(merged(BASE, case["change"]))
    if case["refused"] is None:
        read(text, "file")
        return
    with pytest.raises(ValueError, match=re.escape("'file': contract: ")) as refusal:
        read(text, "file")
    assert str(refusal.value) == f"'file': contract: {case['refused']}"


@READERS
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[]", r"it is \[\], expected an object"),
        (json.dumps(BASE | {"cutoff": float("nan")}), "not valid JSON"),
        (json.dumps(BASE | {"cutoff": float("inf")}), "not valid JSON"),
        (json.dumps(BASE).replace("5.0", "1e999"), "not valid JSON|'cutoff' is .*, expected a number"),
    ],
)
def test_text_that_holds_no_contract(text, words, read):
    with pytest.raises(ValueError, match=f"'file': contract: ({words})"):
        read(text, "file")


@READERS
@pytest.mark.parametrize("key", [key for key in BASE if key not in ("settings", "requires")])
def test_null_is_no_value(key, read):
    with pytest.raises(ValueError, match=f"'file': contract: '{key}' is null, expected "):
        read(json.dumps(BASE | {key: None}), "file")


@READERS
def test_what_export_writes_is_accepted(read, tiny):
    read(Artifact(tiny).contract.to_json(), "file")


def test_keys_that_are_ignored_are_kept_in_the_file_alone():
    newer = json.dumps(merged(BASE, {"schema": "1.2", "new": 1, "model": {"new": 2}}))
    contract = parse_contract(newer, "file")
    assert contract.is_newer
    assert merged(BASE, {"schema": "1.2"}) == json.loads(contract.to_json())


def test_an_operator_that_has_become_another(monkeypatch):
    """A library that computes versions 2 and 3 takes a file of either, and says what to do about the others."""
    monkeypatch.setitem(contract_module.OPERATORS, "mlip::ghost_gather", (2, 3))
    ours = "of the operator mlip::ghost_gather, this mlip-deploy has versions 2 to 3"
    for version, words in [(1, f"1 {ours}. Export the model again"), (4, f"4 {ours}. Type: pip install --upgrade")]:
        with pytest.raises(MLIPError, match=f"the file needs version {words}"):
            parse_contract(json.dumps(merged(BASE, {"operators": {"mlip::ghost_gather": version}})), "file")
    for version in (2, 3):
        parse_contract(json.dumps(merged(BASE, {"operators": {"mlip::ghost_gather": version}})), "file")


# ---- one table of versions ----------------------------------------------------------------------------------------


def test_python_and_the_library_serve_the_same():
    (major, minor), features, operators = _core.format()
    assert (major, minor) == (SCHEMA_MAJOR, SCHEMA_MINOR)
    assert set(features) == FEATURES
    assert operators == OPERATORS


def test_versions_are_of_the_operators_that_the_library_registers():
    """Every operator that a model can call, and no other. Those beside it belong to it or to tests."""
    import torch

    load_operators()
    registered = {name for name in torch._C._dispatch_get_all_op_names() if name.startswith("mlip::")}
    beside = {name for name in registered if name.endswith(("_backward", "_reference"))}
    beside |= {"mlip::instruction_set", "mlip::instruction_sets", "mlip::use_instruction_set"}
    assert registered - beside == set(OPERATORS)


# ---- what is written ----------------------------------------------------------------------------------------------


def made(**fields):
    """A contract as an export makes it."""
    return Contract.model_validate(BASE | fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"surprise": 1},
        {"schema": "1.2", "surprise": 1},
        {"model": BASE["model"] | {"citaton": "x"}},
        {"schema": "1.2", "outputs": [*BASE["outputs"], {"name": "gap", "unit": "eV", "scope": "system", "of": 1}]},
    ],
)
def test_a_typo_is_an_error_where_a_contract_is_made(fields):
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        made(**fields)


CHARGE = {"name": "charge", "kind": "integer", "unit": "e", "range": (-5, 5), "default": 0}
TASK = {"name": "task", "kind": "choice", "choices": ["molecules", "crystals"]}


def test_settings_and_collectives_can_be_declared():
    contract = made(
        settings=[CHARGE, TASK, {"name": "field", "kind": "number", "unit": "V/angstrom"}],
        collectives=["sum_over_atoms"],
        requires=["settings", "sum_over_atoms"],
    )
    assert parse_contract(contract.to_json(), "file") == contract
    _core.check_contract(contract.to_json(), "file")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (CHARGE | {"kind": "whole"}, "kind"),
        (CHARGE | {"range": (5, -5)}, "empty range"),
        (CHARGE | {"default": 6}, "does not accept"),
        (CHARGE | {"default": 0.5}, "does not accept"),
        (CHARGE | {"default": "none"}, "does not accept"),
        (CHARGE | {"choices": ["0", "1"]}, "of kind integer with choices"),
        (TASK | {"choices": []}, "of kind choice without choices"),
        (TASK | {"default": "surfaces"}, "does not accept"),
        (TASK | {"unit": "eV"}, "no range and no unit"),
    ],
)
def test_a_setting_fits_its_kind(wrong, words):
    with pytest.raises(ValidationError, match=words):
        Setting.model_validate(wrong)


def test_unknown_element_is_named(tiny):
    with pytest.raises(
        ValueError, match=r"atom 1 \(counted from 0\) is 'Xe', not an element of tiny \(6 elements: H C"
    ):
        Artifact(tiny).contract.types_of(["H", "Xe"])

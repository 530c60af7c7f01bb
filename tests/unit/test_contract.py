"""Python and C++ read the same contract and refuse the same ones."""

import json

import pytest
from pydantic import ValidationError

from mlip_deploy import _core
from mlip_deploy.artifact.contract import Contract
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.errors import MLIPError


@pytest.fixture(scope="module")
def contract(tiny):
    return json.loads(Artifact(tiny).contract.to_json())


def test_both_sides_accept_what_export_writes(contract):
    Contract.model_validate(contract)
    _core.check_contract(json.dumps(contract), "file")


def change(path, value):
    def apply(contract):
        *parents, last = path.split(".")
        target = contract
        for parent in parents:
            target = target[parent]
        if value is ...:
            del target[last]
        else:
            target[last] = value

    return apply


@pytest.mark.parametrize(
    "mutate",
    [
        change("schema", "2.0"),
        change("surprise", 1),
        change("model.surprise", "x"),
        change("cutoff", ...),
        change("cutoff", -1.0),
        change("cutoff", "five"),
        change("parallel", "mpi"),
        change("dtype", "bfloat16"),
        change("units.energy", "kcal/mol"),
        change("elements", []),
        change("energy_frame.functional", ...),
    ],
)
def test_both_sides_refuse(contract, mutate):
    wrong = json.loads(json.dumps(contract))
    mutate(wrong)
    with pytest.raises(ValidationError):
        Contract.model_validate(wrong)
    with pytest.raises(MLIPError):
        _core.check_contract(json.dumps(wrong), "file")


def test_unknown_element_is_named(tiny):
    with pytest.raises(
        ValueError, match=r"atom 1 \(counted from 0\) is 'Xe', not an element of tiny \(6 elements: H C"
    ):
        Artifact(tiny).contract.types_of(["H", "Xe"])

"""What this version reads of the artifact's format: its schema, the features that a file may require, the versions of
mlip's operators.

docs/compatibility.md says when a number here changes. The library has the same table (csrc/core/format.h), and
tests/unit/test_contract.py compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from mlip_deploy.errors import MLIPError

SCHEMA_MAJOR, SCHEMA_MINOR = 1, 1
"""A file of another major schema is refused; of a later minor one, keys that are not known are ignored."""
SCHEMA = f"{SCHEMA_MAJOR}.{SCHEMA_MINOR}"

FEATURES = frozenset({"positions", "settings", "sum_over_atoms"})
"""What a contract may name in `requires`. A file that requires anything else is refused."""


class OperatorVersions(NamedTuple):
    """The versions of an operator that this package computes."""

    oldest: int
    """the first that still means the same"""
    newest: int
    """what a file is written for"""


OPERATORS = {
    "mlip::adaptive_cutoffs": OperatorVersions(1, 1),
    "mlip::angle_sums": OperatorVersions(1, 1),
    "mlip::edge_harmonics": OperatorVersions(1, 1),
    "mlip::edge_perceptron": OperatorVersions(1, 1),
    "mlip::edge_tensor_product": OperatorVersions(1, 3),
    "mlip::element_linear": OperatorVersions(1, 1),
    "mlip::environment_product": OperatorVersions(1, 1),
    "mlip::equivariant_linear": OperatorVersions(1, 1),
    "mlip::feed_forward": OperatorVersions(1, 1),
    "mlip::gate": OperatorVersions(1, 1),
    "mlip::gated_addition": OperatorVersions(1, 1),
    "mlip::ghost_gather": OperatorVersions(1, 1),
    "mlip::long_range_pairs": OperatorVersions(1, 1),
    "mlip::neighbour_attention": OperatorVersions(1, 2),
    "mlip::so2_convolution": OperatorVersions(1, 1),
    "mlip::sum_over_atoms": OperatorVersions(1, 1),
    "mlip::symmetric_contraction": OperatorVersions(1, 1),
    "mlip::symmetry_functions": OperatorVersions(1, 1),
    "mlip::token_attention": OperatorVersions(1, 1),
}
"""Of each operator that a model may call, its backward pass included."""


def versions_of(operators: Iterable[str]) -> dict[str, int]:
    """Of the operators that a file calls, as its contract states them.

    Raises:
        MLIPError: names an operator that is not for files.
    """
    names = sorted(operators)
    for name in names:
        if name not in OPERATORS:
            raise MLIPError(f"the model calls {name}, which files may not. Operators for files: {', '.join(OPERATORS)}")
    return {name: OPERATORS[name].newest for name in names}

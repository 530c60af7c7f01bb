"""MACE's symmetric contraction as the operator `mlip::symmetric_contraction`.

MACE contracts, for every output component o, the components of an atom's features A with generalised Clebsch-Gordan
coefficients U and learnt weights W of the atom's element (I. Batatia et al., NeurIPS 2022, eqs. 10 and 11):

    out[o] = Σ_ν Σ_{i1..iν} Σ_k U_ν[o, i1..iν, k] W_ν[element, k] A[i1] ... A[iν]      for each channel

Products that differ in the order of their factors are one monomial, few monomials have a coefficient that is not zero,
and Σ_k U W is a constant of the element. What is left is a short polynomial.
"""

from typing import Any

import torch
from torch import Tensor, nn

from mlip_deploy.exporters.layers.equivariant import NotFusible

HIGHEST_DEGREE = 4
"""of the polynomials that the operator is compiled for"""
CHANNEL_BLOCK = 16
"""channels whose coefficients the operator wants beside each other"""


class SymmetricContraction(nn.Module):
    """MACE's SymmetricContraction on blocks [n_atoms, 2l+1, channels].

    Args:
        original: with internal weights.
        dtype: of the coefficients.

    Raises:
        NotFusible: for features with different numbers of channels, and for a correlation that is not compiled.
    """

    factors: Tensor
    terms: Tensor
    coefficients: Tensor

    def __init__(self, original: Any, dtype: torch.dtype):
        super().__init__()
        multiplicities = {entry.mul for entry in original.irreps_in}
        degree = max(int(contraction.correlation) for contraction in original.contractions)
        if len(multiplicities) != 1 or degree > HIGHEST_DEGREE:
            raise NotFusible(
                f"the symmetric contraction of {original.irreps_in} has a correlation of {degree}; the fast path takes "
                f"one number of channels and correlations up to {HIGHEST_DEGREE}"
            )
        n_components = sum(entry.ir.dim for entry in original.irreps_in)
        self.n_components, self.channels = n_components, original.irreps_in[0].mul
        monomials: dict[tuple[int, ...], int] = {}
        terms, coefficients, self.splits = [], [], []
        start = 0
        for contraction in original.contractions:
            for nu in range(1, contraction.correlation + 1):
                outputs, keys, values = _polynomial(contraction, nu, n_components, degree, dtype)
                terms += [
                    (start + o, monomials.setdefault(key, len(monomials))) for o, key in zip(outputs, keys, strict=True)
                ]
                coefficients.append(values)
            self.splits.append(_components(contraction))
            start += self.splits[-1]
        if not terms:
            raise NotFusible("the symmetric contraction has no coefficient that is not zero")
        self.n_outputs = start
        order = sorted(range(len(terms)), key=terms.__getitem__)
        self.register_buffer("terms", torch.tensor([terms[t] for t in order]))
        self.register_buffer("factors", torch.tensor(list(monomials)))
        self.register_buffer("coefficients", _in_blocks(torch.cat(coefficients, dim=1)[:, order]).to(dtype))

    def forward(self, rows: Tensor, types: Tensor) -> list[Tensor]:
        """
        Args:
            rows: [n_atoms, n_components * channels], blocks of the input irreps behind each other.
            types: int64 [n_atoms], element of each atom.

        Returns:
            Blocks of the output irreps.
        """
        outputs = torch.ops.mlip.symmetric_contraction(
            rows.view(rows.shape[0], self.n_components, self.channels),
            types,
            self.factors,
            self.terms,
            self.n_outputs,
            self.coefficients,
        )
        result: list[Tensor] = list(outputs.split(self.splits, dim=1))
        return result


def _components(contraction: Any) -> int:
    """2l+1 of a contraction's output, from the size of its coefficients."""
    coefficients = contraction.U_tensors(1)
    # Scalars have no dimension for their one component.
    return int(coefficients.shape[0]) if coefficients.dim() == 3 else 1


def _polynomial(
    contraction: Any, nu: int, n_components: int, degree: int, dtype: torch.dtype
) -> tuple[list[int], list[tuple[int, ...]], Tensor]:
    """Terms of order nu: output components, factors (padded with the number one), values [n_elements, n_terms, u]."""
    u = contraction.U_tensors(nu).detach().double()
    n_paths = u.shape[-1]
    u = u.reshape(-1, n_components**nu, n_paths)
    weights = contraction.weights_max if nu == contraction.correlation else contraction.weights[-nu]
    found = torch.nonzero(u.abs().amax(dim=(0, 2)))[:, 0]
    digits = torch.stack([found // n_components**d % n_components for d in range(nu)], dim=1)
    padding = torch.full([len(found), degree - nu], n_components)
    keys, places = torch.unique(torch.cat([digits, padding], dim=1).sort(dim=1).values, dim=0, return_inverse=True)
    summed = u.new_zeros(u.shape[0], len(keys), n_paths).index_add(1, places, u[:, found])
    # Orders that cancel leave a rounding error, which a float32 file does not resolve.
    least = 4 * torch.finfo(dtype).eps * float(u.abs().max()) if u.numel() else 0.0
    outputs, kept = torch.nonzero(summed.abs().amax(dim=2) > least, as_tuple=True)
    values = torch.einsum("tk,eku->etu", summed[outputs, kept], weights.detach().double())
    return outputs.tolist(), [tuple(keys[k].tolist()) for k in kept], values


def _in_blocks(coefficients: Tensor) -> Tensor:
    """[n_elements, n_terms, channels] -> [n_elements, n_blocks, n_terms, CHANNEL_BLOCK], padded with zeros."""
    n_elements, n_terms, channels = coefficients.shape
    padded = nn.functional.pad(coefficients, (0, -channels % CHANNEL_BLOCK))
    return padded.reshape(n_elements, n_terms, -1, CHANNEL_BLOCK).transpose(1, 2).contiguous()

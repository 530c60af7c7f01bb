"""So3krates' attention between the neighbours of each atom, from its features to the sums over neighbours."""

from typing import Any

import torch
from torch import Tensor, nn

from mlip_deploy.exporters.families.so3lr.radial import RadialBasis, RadialNetworks
from mlip_deploy.exporters.layers.radial_table import NO_TABLE, RadialTable, radial_table
from mlip_deploy.operators import load_operators


class Projections(nn.Module):
    """Queries, keys and values of atoms.

    Both kinds of attention stand side by side: channels of invariant features, then those of equivariant ones. What
    attention weights are divided by is part of the queries.

    Args:
        original: `EuclideanAttentionBlock`.
    """

    queries: Tensor
    keys: Tensor
    values: Tensor

    def __init__(self, original: Any):
        super().__init__()

        def blocks(*matrices: Tensor) -> Tensor:
            return torch.cat([_block_diagonal(*matrix.detach()) for matrix in matrices], dim=1)

        queries = original.W_q_inv / original.att_norm_inv, original.W_q_ev / original.att_norm_ev
        self.register_buffer("queries", blocks(*queries))
        self.register_buffer("keys", blocks(original.W_k_inv, original.W_k_ev))
        self.register_buffer("values", blocks(original.W_v_inv))

    def forward(self, scalars: Tensor, n_owned: int) -> tuple[Tensor, Tensor, Tensor]:
        """Invariant features of all nodes [n_nodes, n_features] to queries of owned atoms, keys and values of all."""
        return scalars[:n_owned] @ self.queries, scalars @ self.keys, scalars @ self.values


class Differences:
    """The perceptrons that see how equivariant features of neighbours differ, of both kinds of attention.

    Args:
        original: `EuclideanTransformer`.
        first: whether equivariant features are all zero still, so that the perceptrons give one vector.

    Attributes:
        first_matrix: [n_degrees, 2 * n_hidden]
        first_bias: [2 * n_hidden]
        second_matrices: [2, n_hidden, n_features]
        bias: what is added to them [2 * n_features]; in the first layer all that they give.
    """

    def __init__(self, original: Any, first: bool):
        networks = [original.filter_net_inv.mlp_ev, original.filter_net_ev.mlp_ev]
        inner, outer = [network[0] for network in networks], [network[2][0] for network in networks]
        self.activation: nn.Module = networks[0][1]
        self.first_matrix = torch.cat([linear.weight.detach() for linear in inner]).t()
        self.first_bias = torch.cat([linear.bias.detach() for linear in inner])
        self.second_matrices = torch.stack([linear.weight.detach().t() for linear in outer])
        self.bias = torch.cat([linear.bias.detach() for linear in outer])
        if first:
            with torch.no_grad():
                self.bias = self.bias + self.activation(self.first_bias) @ _block_diagonal(*self.second_matrices)


class PlainAttention(nn.Module):
    """Attention by torch's operators.

    Args:
        original: `EuclideanTransformer`.
        first: whether equivariant features are all zero still.
    """

    # TorchScript then compiles only the branch that is taken.
    __constants__ = ("first",)
    invariants: Tensor
    heads: Tensor
    of_head: Tensor
    of_equivariant_head: Tensor
    hidden_matrix: Tensor
    hidden_bias: Tensor
    matrix: Tensor

    def __init__(self, original: Any, first: bool):
        super().__init__()
        block = original.euclidean_attention_block
        self.first, self.projections = first, Projections(block)
        contraction, n_features = block.so3_conv_invariants, int(block.num_features)
        dtype = contraction.cg_rep.dtype
        of_degree = contraction.segment_sum_matrix.detach().to(dtype)
        self.register_buffer("invariants", contraction.cg_rep.detach().unsqueeze(1) * of_degree)
        heads = [
            _block_diagonal(*torch.ones(n_heads, n_features // n_heads, 1, dtype=dtype))
            for n_heads in (block.inv_heads, block.ev_heads)
        ]
        self.register_buffer("heads", _block_diagonal(*heads))
        nothing = heads[1].new_zeros(heads[1].shape[1], n_features)
        self.register_buffer("of_head", torch.cat([heads[0].t(), nothing]))
        nothing = of_degree.new_zeros(heads[0].shape[1], of_degree.shape[0])
        self.register_buffer("of_equivariant_head", torch.cat([nothing, of_degree.t()]))
        differences = Differences(original, first)
        self.activation = differences.activation
        self.register_buffer("hidden_matrix", differences.first_matrix)
        self.register_buffer("hidden_bias", differences.first_bias)
        self.register_buffer("matrix", _block_diagonal(*differences.second_matrices))
        self.radial = RadialNetworks(original, differences.bias)

    def forward(
        self,
        scalars: Tensor,
        vectors: Tensor,
        n_owned: int,
        edge_index: Tensor,
        radial: Tensor,
        cutoffs: Tensor,
        harmonics: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """
        Args:
            scalars, vectors: invariant and equivariant features of all nodes [n_nodes, ...].
            radial, cutoffs, harmonics: of edges: functions of the distance [n_edges, n_functions], the cutoff function
                [n_edges] and [n_edges, n_harmonics].

        Returns:
            what is added to the features of owned atoms [n_owned, n_features] and [n_owned, n_harmonics].
        """
        centres, neighbours = edge_index[0], edge_index[1]
        queries, keys, values = self.projections(scalars, n_owned)
        filters = self.radial(radial)
        if not self.first:
            differences = vectors.index_select(0, neighbours) - vectors[:n_owned].index_select(0, centres)
            hidden = torch.addmm(self.hidden_bias, differences.square() @ self.invariants, self.hidden_matrix)
            filters = torch.addmm(filters, self.activation(hidden), self.matrix)
        products = queries.index_select(0, centres) * filters
        products = products * keys.index_select(0, neighbours)
        attention = (products @ self.heads) * cutoffs.unsqueeze(1)
        messages = (attention @ self.of_head) * values.index_select(0, neighbours)
        vector_messages = (attention @ self.of_equivariant_head) * harmonics
        return (
            torch.zeros_like(scalars[:n_owned]).index_add(0, centres, messages),
            torch.zeros_like(vectors[:n_owned]).index_add(0, centres, vector_messages),
        )


class FusedAttention(nn.Module):
    """The same by `mlip::neighbour_attention`.

    Args:
        original: `EuclideanTransformer`.
        first: whether equivariant features are all zero still.
        table: of the layer's filters, and the width of its intervals in Å, from `filter_table`; `forward` then takes
            distances [n_edges] Å in place of functions of the distance. None to evaluate the networks.
    """

    table: Tensor
    factors: Tensor
    hidden_matrix: Tensor
    hidden_bias: Tensor
    second_matrices: Tensor
    degrees: list[int]

    def __init__(self, original: Any, first: bool, table: RadialTable | None):
        super().__init__()
        load_operators()
        block = original.euclidean_attention_block
        self.projections = Projections(block)
        contraction = block.so3_conv_invariants
        factors = contraction.cg_rep.detach()
        self.n_heads = int(block.inv_heads)
        self.degrees = [int(n) for n in contraction.segment_sum_matrix.sum(dim=0)]
        self.register_buffer("factors", factors)
        differences = Differences(original, first)
        n_hidden = 0 if first else differences.second_matrices.shape[1]
        self.register_buffer("hidden_matrix", differences.first_matrix[:, : 2 * n_hidden].contiguous())
        self.register_buffer("hidden_bias", differences.first_bias[: 2 * n_hidden])
        self.register_buffer("second_matrices", differences.second_matrices[:, :n_hidden].contiguous())
        values, self.step, self.kink = table or NO_TABLE
        self.register_buffer("table", values.to(factors.dtype))
        self.radial: nn.Module = nn.Identity() if table is not None else RadialNetworks(original, differences.bias)

    def forward(
        self,
        scalars: Tensor,
        vectors: Tensor,
        n_owned: int,
        edge_index: Tensor,
        radial: Tensor,
        cutoffs: Tensor,
        harmonics: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """As of `PlainAttention`, but for distances in place of `radial` where there is a table."""
        queries, keys, values = self.projections(scalars, n_owned)
        messages, vector_messages = torch.ops.mlip.neighbour_attention(
            queries,
            keys,
            values,
            vectors,
            self.radial(radial),
            cutoffs,
            harmonics,
            edge_index,
            self.n_heads,
            self.degrees,
            self.table,
            self.step,
            self.factors,
            [self.hidden_matrix, self.hidden_bias, self.second_matrices],
            self.kink,
        )
        return messages, vector_messages


def is_fusible(original: Any) -> bool:
    """Whether `mlip::neighbour_attention` knows the activation of an `EuclideanTransformer`."""
    return isinstance(original.filter_net_inv.mlp_ev[1], nn.SiLU)


def filter_tables(in_float64: Any, dtype: torch.dtype) -> list[RadialTable] | None:
    """Filters of all layers over the distance, as `FusedAttention` takes them.

    Args:
        in_float64: `SO3LR` in float64.
        dtype: in which the model computes; it decides the tolerances.

    Returns:
        None when no table of reasonable size is good enough.
    """
    basis = RadialBasis(in_float64)
    tables = []
    for k, layer in enumerate(in_float64.euclidean_transformers):
        filters = nn.Sequential(basis, RadialNetworks(layer, Differences(layer, k == 0).bias))
        table = radial_table(filters, float(in_float64.r_max), dtype)
        if table is None:
            return None
        tables.append(table)
    return tables


def _block_diagonal(*matrices: Tensor) -> Tensor:
    matrix: Tensor = torch.block_diag(*matrices)  # type: ignore[no-untyped-call]
    return matrix

"""Allegro on fused operators: the same numbers as `nequip.NequIPEnergy`, in component-major layout.

Per layer: `mlip::environment_product` in place of weighted harmonics, their sum over the edges of an atom and the
tensor product; `mlip::equivariant_linear` for the matrices of the perceptrons, which reads several inputs and writes
several outputs without joining or cutting them. Matrices with nothing between them are multiplied at export.
"""

from typing import Any

import torch
from torch import Tensor, nn

from mlip_deploy.exporters.families.nequip.graph_data import graph_data
from mlip_deploy.exporters.layers.equivariant import EdgeHarmonics, EquivariantLinear, LinearTerm, NotFusible
from mlip_deploy.operators import load_operators

BEFORE = [
    {"EdgeLengthNormalizer"},
    {"SequentialGraphNetwork", "TwoBodySplineScalarEmbed"},
    {"ScalarMLP"},
    {"TwoBodySphericalHarmonicTensorEmbed"},
    {"Allegro_Module"},
    {"ScalarMLP"},
]
"""what a model begins with, in this order"""
AFTER = {"EdgewiseReduce", "PerTypeScaleShift", "AddRadialCutoffToData", "ZBL", "LennardJones"}
BY_COMPONENT = [-1]
"""in place of the blocks of features that are no weighted harmonics"""


class FusedAllegroEnergy(nn.Module):
    """Atomic energies of owned atoms from edge vectors, in eV.

    Args:
        steps: Allegro's modules in the order in which they run, in the type to compute in.
        types: Allegro's type index of each of the artifact's elements.

    Raises:
        NotFusible: for a layer that has no fused form.
    """

    # TorchScript then compiles only the branch that is taken.
    __constants__ = ("has_norms",)
    types: Tensor
    norms: Tensor

    def __init__(self, steps: dict[str, Any], types: list[int]):
        super().__init__()
        _check(steps)
        edge_norm, embedding, scalar_embed, tensor_embed, allegro, readout, *after = steps.values()
        self.register_buffer("types", torch.tensor(types))
        self.edge_norm, self.embedding, self.after = edge_norm, embedding, nn.ModuleList(after)
        self.harmonics = EdgeHarmonics(tensor_embed.sh)
        irreps = tensor_embed.irreps_out[tensor_embed.tensor_basis_out_field]
        n_scalars, self.channels = int(allegro.num_scalar_features), int(allegro.num_tensor_features)
        # One over the root of the mean number of neighbours: a factor of the product, or one of each element's own.
        norms = allegro.avg_num_neighbors_norm.norm_const.detach().reshape(-1, 1, 1)
        self.has_norms = len(norms) > 1
        self.register_buffer("norms", norms[types] if self.has_norms else norms)
        factor = 1.0 if self.has_norms else float(norms)

        def outputs(matrix: Tensor) -> list[Tensor]:
            """Columns of scalars, and of the environment's weights if there are any."""
            scalars, weights = matrix[:, :n_scalars], matrix[:, n_scalars:]
            return [scalars, *([_by_block(weights, allegro._env_weighter)] if weights.shape[1] else [])]

        # Nothing but matrices read the two-body scalars.
        *matrices, last = _matrices(scalar_embed.mlp_module)
        projections = [
            _by_block(_matrices(tensor_embed.env_embed_linear)[0], tensor_embed._edge_weighter),
            *outputs(_matrices(allegro.first_layer_env_embed_projection)[0]),
        ]
        joined = [(last.double() @ projection.double()).to(last) for projection in projections]
        first = matrices[0] if matrices else last
        self.two_body = Perceptron(matrices, joined, _activations(scalar_embed.mlp_module), [first.shape[0]])
        products: list[EnvironmentProduct] = []
        latents: list[Perceptron] = []
        for product, latent in zip(allegro.tps, allegro.latents, strict=True):
            feature_blocks = BY_COMPONENT if products else _blocks(tensor_embed._edge_weighter, irreps)
            weight_blocks = _blocks(allegro._env_weighter, irreps)
            products.append(EnvironmentProduct(product, factor, feature_blocks, weight_blocks))
            *matrices, last = _matrices(latent)
            inputs = [n_scalars] * len(products) + [self.channels]
            latents.append(Perceptron(matrices, outputs(last), _activations(latent), inputs))
        self.products, self.latents = nn.ModuleList(products), nn.ModuleList(latents)
        *matrices, last = _matrices(readout.mlp_module)
        inputs = [n_scalars] * (len(latents) + 1)
        self.readout = Perceptron(matrices, [last], _activations(readout.mlp_module), inputs)

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        energies: Tensor = self.energies_and_features(node_types, n_owned, edge_index, edge_vectors)[0]
        return energies

    def energies_and_features(
        self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The features are the scalars of all layers, summed over the edges of the atom."""
        data = graph_data(self.types, node_types, edge_index, edge_vectors)
        data = self.embedding(self.edge_norm(data))
        _, harmonics = self.harmonics(edge_vectors)
        features, scalars, weights = self.two_body([data["edge_embedding"].unsqueeze(1)])
        features = features.reshape(features.shape[0], features.shape[2] // self.channels, self.channels)
        all_scalars = [scalars]
        for product, latent in zip(self.products, self.latents):  # noqa: B905  TorchScript knows no `strict`
            weights = weights.reshape(weights.shape[0], weights.shape[2] // self.channels, self.channels)
            if self.has_norms:
                weights = weights * self.norms[node_types[edge_index[0]]]
            features, scalars = product(features, weights, harmonics, edge_index, n_owned)
            found = latent(all_scalars + [scalars.unsqueeze(1)])  # noqa: RUF005  TorchScript knows no star
            all_scalars.append(found[0])
            weights = found[-1]  # the next layer's; of the last layer there are none
        data["edge_energy"] = self.readout(all_scalars)[0].squeeze(1)
        of_edges = torch.cat(all_scalars, dim=2).squeeze(1)
        of_atoms = of_edges.new_zeros([n_owned, of_edges.shape[1]]).index_add(0, edge_index[0], of_edges)
        for step in self.after:
            data = step(data)
        return data["atomic_energy"][:n_owned].squeeze(1), of_atoms


class EnvironmentProduct(nn.Module):
    """Allegro's Contracter, with the sum of weighted harmonics before it.

    Args:
        original: allegro.nn._strided.Contracter.
        factor: multiplies the environment.
        feature_blocks: block of weights of each component, if features are weighted harmonics; else BY_COMPONENT.
        weight_blocks: block of the environment's weights of each component.

    Raises:
        NotFusible: when it does not multiply with every component of the harmonics.
    """

    coefficients: Tensor
    feature_blocks: list[int]
    weight_blocks: list[int]

    def __init__(self, original: Any, factor: float, feature_blocks: list[int], weight_blocks: list[int]):
        super().__init__()
        if original.base_dim2 != len(weight_blocks) or (
            feature_blocks != BY_COMPONENT and original.base_dim1 != len(feature_blocks)
        ):
            raise NotFusible(
                f"a tensor product of {original.irreps_in1} with {original.irreps_in2} leaves out harmonics"
            )
        load_operators()
        with torch.no_grad():
            dense = factor * torch.einsum(original._weight_w3j_einstr, original.weights, original.w3j)
        if not original.path_channel_coupling:
            dense = dense.unsqueeze(0).expand(original.mul, *dense.shape)
        if original.w3j_is_ij_diagonal:
            dense = torch.diag_embed(dense.transpose(1, 2)).permute(0, 2, 3, 1)
        by_term = dense.permute(1, 3, 2, 0)  # [m1, m3, m2, channels]
        places = by_term.abs().amax(dim=3).nonzero()
        self.register_buffer("coefficients", by_term[tuple(places.t())].contiguous())
        self.terms: list[int] = places[:, [0, 2, 1]].flatten().tolist()
        self.feature_blocks, self.weight_blocks = feature_blocks, weight_blocks

    def forward(
        self, features: Tensor, weights: Tensor, harmonics: Tensor, edge_index: Tensor, n_owned: int
    ) -> tuple[Tensor, Tensor]:
        """
        Args:
            features: [n_edges, components, channels]; weights of the harmonics in the first layer.
            weights: [n_edges, blocks, channels], of the environment.
            harmonics: [n_edges, (lmax+1)²].
            edge_index: int64 [2, n_edges], owned centre and neighbour.
            n_owned: how many nodes are centres.

        Returns:
            Features [n_edges, components out, channels], and their scalars [n_edges, channels].
        """
        product, scalars = torch.ops.mlip.environment_product(
            features,
            weights,
            harmonics,
            edge_index,
            n_owned,
            self.terms,
            self.coefficients,
            self.feature_blocks,
            self.weight_blocks,
        )
        return product, scalars


class Perceptron(nn.Module):
    """Matrices with activations between them, from several blocks of scalars to several.

    Args:
        matrices: all but the last, [n_in, n_out].
        last: the last matrix, as the columns of each block of the result.
        activations: between them.
        inputs: channels of each block that the first matrix reads.
    """

    none: Tensor

    def __init__(self, matrices: list[Tensor], last: list[Tensor], activations: list[nn.Module], inputs: list[int]):
        super().__init__()
        layers = []
        for columns in [*([matrix] for matrix in matrices), last]:
            parts = {
                (source, target): part
                for target, matrix in enumerate(columns)
                for source, part in enumerate(torch.split(matrix, inputs))
            }
            outputs = [(1, matrix.shape[1]) for matrix in columns]
            layers.append(EquivariantLinear(LinearTerm([(1, n) for n in inputs], outputs, parts, {})))
            inputs = [columns[0].shape[1]]
        self.first, self.rest = layers[0], nn.ModuleList(layers[1:])
        self.activations = nn.ModuleList(activations)
        self.register_buffer("none", torch.zeros(0, dtype=torch.int64))

    def forward(self, blocks: list[Tensor]) -> list[Tensor]:
        """Blocks [n_edges, 1, channels]."""
        blocks = self.first(blocks, self.none)
        for activation, linear in zip(self.activations, self.rest):  # noqa: B905  TorchScript knows no `strict`
            blocks = linear([activation(blocks[0])], self.none)
        return blocks


def _check(steps: dict[str, Any]) -> None:
    kinds = [type(step).__name__ for step in steps.values()]
    known = [*BEFORE, *[AFTER] * (len(kinds) - len(BEFORE))]
    for (name, kind), expected in zip(zip(steps, kinds, strict=True), known, strict=True):
        if kind not in expected:
            raise NotFusible(f"the model has a layer {name} ({kind}) in place of a {' or '.join(sorted(expected))}")


def _matrices(mlp: Any) -> list[Tensor]:
    """Of a ScalarMLPFunction, [n_in, n_out]."""
    if type(mlp.mlp).__name__ == "DeepLinearMLP":
        return [torch.linalg.multi_dot([weight.detach() for weight in mlp.mlp.weights]) * mlp.mlp.alpha]
    layers = [layer for layer in mlp.mlp if type(layer).__name__ == "ScalarLinearLayer"]
    if any(layer.bias is not None for layer in layers):
        raise NotFusible("a perceptron has a bias")
    return [layer.weight.detach() * layer.alpha for layer in layers]


def _activations(mlp: Any) -> list[nn.Module]:
    """Of a ScalarMLPFunction, one between two matrices."""
    if type(mlp.mlp).__name__ == "DeepLinearMLP":
        return []
    return [layer for layer in mlp.mlp if type(layer).__name__ != "ScalarLinearLayer"]


def _blocks(weighter: Any, irreps: Any) -> list[int]:
    """Which of a MakeWeightedChannels' weights each component of the harmonics is multiplied with."""
    return [
        k if weighter.weight_individual_irreps else 0 for k, entry in enumerate(irreps) for _ in range(entry.ir.dim)
    ]


def _by_block(matrix: Tensor, weighter: Any) -> Tensor:
    """Columns [channels, blocks], as MakeWeightedChannels takes them, in the order [blocks, channels]."""
    columns = matrix.reshape(len(matrix), weighter.multiplicity_out, -1).transpose(1, 2).flatten(1)
    scale: float = weighter.alpha
    return columns * scale

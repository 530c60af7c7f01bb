"""What NequIP's modules are given of a graph, which they hand from one to the next."""

from torch import Tensor


def graph_data(types: Tensor, node_types: Tensor, edge_index: Tensor, edge_vectors: Tensor) -> dict[str, Tensor]:
    """Under NequIP's names.

    Args:
        types: the model's type index of each of the artifact's elements.
        node_types, edge_index, edge_vectors: as of EdgeGradientModel.forward.
    """
    # Positions are not read when there are edge vectors, but for the number of nodes.
    data: dict[str, Tensor] = {
        "pos": edge_vectors.new_zeros(node_types.shape[0], 3),
        "atom_types": types[node_types],
        "edge_index": edge_index,
        "edge_vectors": edge_vectors,
    }
    return data

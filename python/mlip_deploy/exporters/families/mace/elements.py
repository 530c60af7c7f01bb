"""A MACE model cut down to some of its elements: the same numbers from smaller tables.

Elements enter MACE as one-hot vectors, and e3nn divides the weights of a layer by the square root of its number of
inputs: weights that are kept are therefore multiplied by the square root of the ratio.
"""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn


def restrict(model: Any, kept: list[int]) -> Any:
    """A copy of the model whose elements are `kept`, indices into its table of elements."""
    model = copy.deepcopy(model)
    n_elements = int(model.atomic_numbers.numel())
    index = torch.tensor(kept)
    ratio = math.sqrt(len(kept) / n_elements)
    model.atomic_numbers = model.atomic_numbers[index]
    energies = model.atomic_energies_fn
    energies.atomic_energies = energies.atomic_energies[..., index]
    model.node_embedding.linear = _linear(model.node_embedding.linear, index, ratio)
    for interaction, product in zip(model.interactions, model.products, strict=True):
        for name in ("source_embedding", "target_embedding"):
            if hasattr(interaction, name):
                setattr(interaction, name, _linear(getattr(interaction, name), index, ratio))
        if hasattr(interaction.skip_tp, "irreps_in2"):
            interaction.skip_tp = _product(interaction.skip_tp, index, ratio)
        if not getattr(product, "use_agnostic_product", False):
            for contraction in product.symmetric_contractions.contractions:
                contraction.weights_max = _rows(contraction.weights_max, index)
                for k, weights in enumerate(contraction.weights):
                    contraction.weights[k] = _rows(weights, index)
    return model


def _rows(weights: Tensor, index: Tensor) -> nn.Parameter:
    return nn.Parameter(weights.detach()[index], requires_grad=False)


def _linear(original: Any, index: Tensor, ratio: float) -> Any:
    """e3nn's Linear from one-hot elements."""
    from e3nn import o3

    weights = original.weight.detach().reshape(original.irreps_in.dim, -1)[index]
    linear = o3.Linear(f"{len(index)}x0e", original.irreps_out).to(weights)
    linear.weight.data = (ratio * weights).reshape(-1)
    return linear


def _product(original: Any, index: Tensor, ratio: float) -> Any:
    """e3nn's FullyConnectedTensorProduct with one-hot elements."""
    from e3nn import o3

    views = [original.weight_view_for_instruction(k).detach() for k in range(len(original.instructions))]
    product = o3.FullyConnectedTensorProduct(original.irreps_in1, f"{len(index)}x0e", original.irreps_out)
    product = product.to(original.weight)
    product.weight.data = torch.cat([(ratio * view[:, index]).reshape(-1) for view in views])
    return product

"""orb-models' own regressor with a checkpoint's weights, and its results.

A checkpoint is a dictionary of weights and no more: sizes follow from their shapes. The module of orb-models that knows
the architecture (`pretrained`) imports a package for downloads; here the same classes are given the same arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from ase import Atoms
from torch import Tensor

from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.cells import closed_cell
from mlip_deploy.exporters.settings import default_dtype, quiet
from mlip_deploy.result import Result

CUTOFF = 6.0
"""Å, of all models: orb-models has it in its code"""


def build_model(state: Mapping[str, Tensor], path: Path) -> Any:
    """Orb's ConservativeForcefieldRegressor in float32, without the head that estimates errors of forces.

    Raises:
        MLIPError: for weights that are not those of an Orb v3.
    """
    from orb_models.forcefield.angular import SphericalHarmonics
    from orb_models.forcefield.conservative_regressor import ConservativeForcefieldRegressor
    from orb_models.forcefield.forcefield_heads import EnergyHead
    from orb_models.forcefield.gns import MoleculeGNS
    from orb_models.forcefield.nn_util import ChargeSpinConditioner
    from orb_models.forcefield.rbf import BesselBasis

    def depth(prefix: str) -> int:
        return sum(key.startswith(prefix) and key.endswith(".weight") for key in state) - 1

    latent_dim = state["model.atom_emb.embeddings.weight"].shape[1]
    of_edge, of_head = "model._encoder._edge_fn.mlp.NN-", "heads.energy.mlp.NN-"
    layers = {key.split(".")[2] for key in state if key.startswith("model.gnn_stacks.")}
    is_conditioned = any(key.startswith("model.conditioner.") for key in state)
    with quiet(), default_dtype(torch.float32):
        model = ConservativeForcefieldRegressor(
            heads={
                "energy": EnergyHead(
                    latent_dim=latent_dim,
                    num_mlp_layers=depth(of_head),
                    mlp_hidden_dim=state[f"{of_head}0.weight"].shape[0],
                    predict_atom_avg=True,
                    activation="silu",
                )
            },
            model=MoleculeGNS(
                latent_dim=latent_dim,
                num_message_passing_steps=len(layers),
                num_mlp_layers=depth(of_edge),
                mlp_hidden_dim=state[f"{of_edge}0.weight"].shape[0],
                rbf_transform=BesselBasis(r_max=CUTOFF, num_bases=8),
                angular_transform=SphericalHarmonics(lmax=3, normalize=True, normalization="component"),
                outer_product_with_cutoff=True,
                use_embedding=True,
                interaction_params={"distance_cutoff": True, "attention_gate": "sigmoid"},
                node_feature_names=["feat"],
                edge_feature_names=["feat"],
                conditioner=ChargeSpinConditioner(latent_dim) if is_conditioned else None,
                activation="silu",
                mlp_norm="rms_norm",
            ),
            ensure_grad_loss_weights=False,
            pair_repulsion=True,
            has_stress=True,
        )
        weights = {key: value for key, value in state.items() if not key.startswith("heads.confidence.")}
        try:
            missing, unexpected = torch.nn.Module.load_state_dict(model, weights, strict=False)
        except RuntimeError as error:
            raise MLIPError(f"'{path}': its weights are not those of an Orb v3 ({error})") from error
    if missing or unexpected:
        wrong = ", ".join([*missing, *unexpected][:5])
        raise MLIPError(f"'{path}': its weights are not those of an Orb v3 (missing or unknown: {wrong})")
    return model.eval().requires_grad_(False)


def system_config(most_neighbours: int) -> Any:
    """What orb-models makes graphs by."""
    from orb_models.forcefield.atomic_system import SystemConfig

    return SystemConfig(radius=CUTOFF, max_num_neighbors=most_neighbours)


def original(build: Callable[[], Any], most_neighbours: int, dtype: torch.dtype) -> Callable[[Atoms], Result]:
    """orb-models' own graph, layers and derivatives in `dtype`.

    The energies of the elements are added in float64: the noise of the original in float32 is then that of its layers.
    Each atom has an equal share of the rest.

    Args:
        build: makes the model in float32.
    """
    model: Any = None
    references: Tensor = torch.empty(0)

    def evaluate(atoms: Atoms) -> Result:
        nonlocal model, references
        from orb_models.forcefield.atomic_system import ase_atoms_to_atom_graphs

        if model is None:
            model = build().to(dtype)
            linear = model.heads["energy"].reference.linear
            references = linear.weight.detach().double().reshape(-1)
            linear.weight = torch.nn.Parameter(torch.zeros_like(linear.weight), requires_grad=False)
        closed = atoms.copy()
        if atoms.pbc.any():
            closed.set_cell(closed_cell(atoms, CUTOFF))
            closed.pbc = True
        with default_dtype(dtype), quiet():
            found = model.predict(ase_atoms_to_atom_graphs(closed, system_config(most_neighbours), device="cpu"))
        share = float(found["energy"].detach().double()) / len(atoms)
        atomic_energies = (share + references[torch.tensor(atoms.numbers)]).numpy()
        return Result(
            energy=float(atomic_energies.sum()),
            atomic_energies=atomic_energies,
            forces=found["grad_forces"].detach().double().numpy(),
            stress=found["grad_stress"].detach().double().numpy()[0] if atoms.pbc.all() else None,
        )

    return evaluate

"""fairchem's own models, without what training and its calculator need.

`import fairchem.core` imports its calculator, and with it wandb, torchtnt and more. The modules that hold the models
need neither: they are imported behind empty packages of the same names, and behind a stand-in for the unit that trains.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
from collections.abc import Iterator
from typing import Any

import torch
from ase import Atoms
from torch import Tensor

from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.empty_packages import EmptyPackages
from mlip_deploy.exporters.families.fairchem.checkpoint import Checkpoint
from mlip_deploy.exporters.settings import default_dtype, quiet

UNIT = "fairchem.core.units.mlip_unit.mlip_unit"
"""Its OutputSpec and Task are named by the module of the backbone, which uses them for its calculator alone."""
PACKAGES = EmptyPackages(
    "fairchem",
    "fairchem.core",
    "fairchem.core.datasets",
    "fairchem.core.units.mlip_unit",
    stand_ins={UNIT: {"OutputSpec": object, "Task": object}},
)
INFERENCE = {
    "always_use_pbc": False,
    "activation_checkpointing": False,
    "otf_graph": True,
    "radius_pbc_version": 2,
    "use_quaternion_wigner": True,
    "execution_mode": "general",
}
"""what fairchem's own calculator sets, whatever the checkpoint says"""


@contextlib.contextmanager
def fairchem() -> Iterator[None]:
    """While it is open, `fairchem` is its models alone."""
    with PACKAGES.in_place(), quiet():
        yield


def build_model(checkpoint: Checkpoint, dtype: torch.dtype) -> Any:
    """fairchem's HydraModel with a checkpoint's weights, all its constants made in `dtype`.

    Raises:
        MLIPError: when fairchem cannot build what the checkpoint describes, or the weights do not fit it.
    """
    config = copy.deepcopy(checkpoint.config)
    config["backbone"].update(INFERENCE)
    with fairchem(), default_dtype(dtype):
        try:
            model = importlib.import_module("fairchem.core.models.base").HydraModel(**config)
            missing, unexpected = model.load_state_dict(checkpoint.weights, strict=False)
        except (ImportError, TypeError, ValueError, RuntimeError, AssertionError) as error:
            raise MLIPError(
                f"'{checkpoint.path}': fairchem does not build its model ({type(error).__name__}: {error})"
            ) from error
    if missing or unexpected:
        wrong = ", ".join([*missing, *unexpected][:5])
        raise MLIPError(f"'{checkpoint.path}': its weights do not fit its settings (missing or unknown: {wrong})")
    regress = model.backbone.regress_config
    if not regress.direct_forces:
        regress.forces = regress.stress = True  # as fairchem's calculator, for every task
    return model.to(dtype).eval().requires_grad_(False)


def head_of(model: Any) -> Any:
    """The one head of a model, without the wrapper that chooses a dataset's."""
    head = next(iter(model.output_heads.values()))
    return getattr(head, "head", head)


def mix_experts(model: Any, atoms: Atoms, dataset: str, source: str) -> Any:
    """A copy of a model whose experts are mixed for the atoms' composition, charge and spin and a dataset.

    Raises:
        MLIPError: for experts elsewhere than in all linear maps of messages.
    """
    mixed = copy.deepcopy(model)
    data = atomic_data(atoms, dataset, torch.float64)
    with fairchem(), default_dtype(torch.float64):
        try:
            mixed.backbone = mixed.backbone.merge_MOLE_model(data)
        except (AttributeError, ValueError) as error:
            raise MLIPError(
                f"'{source}' has experts elsewhere than in all linear maps of its messages (moe_type, layers_moe), "
                f"which fairchem does not mix ({error})"
            ) from error
        for head in mixed.output_heads.values():
            if hasattr(head, "merge_MOLE_model"):
                head.merge_MOLE_model(data)
    return mixed.requires_grad_(False)


def atomic_data(atoms: Atoms, dataset: str, dtype: torch.dtype) -> Any:
    """fairchem's AtomicData without edges; charge and spin, 0 by default, are in the atoms' info."""
    with fairchem():
        data = importlib.import_module("fairchem.core.datasets.atomic_data").AtomicData
        return data.from_ase(atoms, task_name=dataset, r_data_keys=["spin", "charge"], target_dtype=dtype)


def evaluate(
    model: Any, atoms: Atoms, dataset: str, energy_key: str, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """By fairchem's own neighbours, layers and derivatives, before normaliser and references.

    Args:
        energy_key: of the model's energy among its outputs; "forces" and "stress" take the place of "energy" in it.

    Returns:
        outputs of the energy block [n_atoms], forces [n_atoms, 3] and stress [3, 3].

    Raises:
        MLIPError: for a model without this output.
    """
    seen: list[Tensor] = []
    hook = head_of(model).energy_block.register_forward_hook(lambda module, arguments, result: seen.append(result))
    try:
        # Each edge has a random angle around its axis, on which results do not depend but for their rounding.
        with fairchem(), torch.random.fork_rng(devices=[]), default_dtype(dtype):
            torch.manual_seed(0)
            outputs = model(atomic_data(atoms, dataset, dtype))
    finally:
        hook.remove()

    if energy_key not in outputs:
        raise MLIPError(f"the task {energy_key} is no output of the model, which has {', '.join(sorted(outputs))}")

    def output(name: str) -> Tensor:
        value = outputs[energy_key.removesuffix("energy") + name]
        tensor: Tensor = value[name] if isinstance(value, dict) else value
        return tensor.detach()

    return seen[0].detach().reshape(-1), output("forces"), output("stress").reshape(3, 3)

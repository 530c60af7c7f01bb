"""Small models of real families, so that tests run the whole path in a second instead of a minute."""

from pathlib import Path
from typing import Any

import torch

ELEMENTS = ("H", "C", "O", "Na", "Si", "Cl")


def tiny_sevennet_checkpoint(path: Path, layers: int = 3, seed: int = 0, parity: bool = False, **changes: Any) -> Path:
    """A SevenNet with 7net-0's architecture, few channels, random weights, six elements and a 4 Å cutoff.

    Args:
        changes: of the configuration.
    """
    from ase.data import atomic_numbers
    from sevenn.model_build import build_E3_equivariant_model
    from sevenn.util import load_checkpoint

    config = load_checkpoint("7net-0").config
    config.update(
        {
            "version": "0.13.0",
            "_type_map": {atomic_numbers[symbol]: index for index, symbol in enumerate(ELEMENTS)},
            "_number_of_species": len(ELEMENTS),
            "chemical_species": list(ELEMENTS),
            "channel": 8,
            "num_convolution_layer": layers,
            "is_parity": parity,
            "irreps_manual": ["8x0e", *[f"8x0e+4x1{'o' if parity else 'e'}+2x2e"] * (layers - 1), "8x0e"],
            "weight_nn_hidden_neurons": [8, 8],
            "cutoff": 4.0,
            "cutoff_function": {"cutoff_function_name": "XPLOR", "cutoff_on": 3.2},
            "conv_denominator": [4.0] * layers,
            "shift": [-1.0 * index for index in range(len(ELEMENTS))],
            # large enough that forces are of the order of 1 eV/Å
            "scale": [15.0] * len(ELEMENTS),
        }
        | changes
    )
    torch.manual_seed(seed)
    model = build_E3_equivariant_model(config)
    keys = ("optimizer_state_dict", "scheduler_state_dict")
    torch.save(
        {
            "config": config,
            "model_state_dict": model.state_dict(),
            "epoch": 0,
            "time": "",
            "hash": "",
            **{k: {} for k in keys},
        },
        path,
    )
    return path


def tiny_chgnet_checkpoint(path: Path, seed: int = 0) -> Path:
    """A CHGNet of two layers with few channels and random weights, stored as CHGNet's trainer does."""
    from chgnet.model.model import CHGNet

    torch.manual_seed(seed)
    widths = {f"{kind}_fea_dim": 16 for kind in ("atom", "bond", "angle")}
    hidden = {"atom_conv_hidden_dim": 16, "bond_conv_hidden_dim": 16, "mlp_hidden_dims": (16, 16)}
    torch.save({"model": CHGNet(**widths, **hidden, n_conv=2).as_dict()}, path)
    return path


def tiny_nequix_checkpoint(path: Path, seed: int = 0, **changes: Any) -> Path:
    """A Nequix of two layers with few channels and random weights, stored as nequix's PyTorch version does.

    Args:
        changes: of the settings.
    """
    from ase.data import atomic_numbers

    from mlip_deploy.exporters.families.nequix.framework import model_class
    from mlip_deploy.exporters.settings import default_dtype

    numbers = [atomic_numbers[symbol] for symbol in ELEMENTS]
    settings: dict[str, Any] = {
        "hidden_irreps": "8x0e + 4x1o + 2x2e",
        "lmax": 2,
        "cutoff": 4.0,
        "n_layers": 2,
        "radial_basis_size": 8,
        "radial_mlp_size": 8,
        "radial_mlp_layers": 2,
        "radial_polynomial_p": 6.0,
        "mlp_init_scale": 4.0,
        "index_weights": False,
        "layer_norm": True,
        "shift": 0.3,
        # large enough that forces are of the order of 1 eV/Å
        "scale": 5.0,
        "avg_n_neighbors": 10.0,
    } | changes
    energies = {str(number): -float(number % 7) for number in numbers}
    torch.manual_seed(seed)
    build = model_class()
    with default_dtype(torch.float32):
        model = build(n_species=len(numbers), atom_energies=[energies[str(number)] for number in numbers], **settings)
    # nequix's own function, from the module in which its class is
    build.__init__.__globals__["save_model"](
        path, model, {"atomic_numbers": numbers, "atom_energies": energies, **settings}
    )
    return path


def ani_state(architecture: str = "ani1x", members: int = 1, old_names: bool = False, seed: int = 0) -> dict[str, Any]:
    """The state dictionary of an ANI with random weights, as TorchANI writes it.

    Args:
        architecture: "ani1x" (H C N O) or "ani2x".
        members: of the ensemble; one is no ensemble.
        old_names: with those of earlier versions that TorchANI 2.9 reads, in which it publishes its models.
    """
    from torchani.arch import Assembler
    from torchani.utils import SYMBOLS_1X, SYMBOLS_2X

    torch.manual_seed(seed)
    assembler = Assembler()
    assembler.set_symbols(SYMBOLS_1X if architecture == "ani1x" else SYMBOLS_2X)
    assembler.set_global_cutoff_fn("cosine")
    assembler.set_aev_computer(radial=architecture, angular=architecture)
    assembler.set_atomic_networks(ctor=architecture)
    assembler.set_gsaes_as_self_energies("wb97x-631gd")
    model = assembler.assemble(members)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("weight"):
                parameter.mul_(4.0)  # so that forces are of the order of 1 eV/Å
    state: dict[str, Any] = model.state_dict()
    if old_names:
        terms = {"EtaR": "radial", "ShfR": "radial", "EtaA": "angular", "Zeta": "angular"}
        terms |= {"ShfA": "angular", "ShfZ": "angular"}
        state = {"atomic_numbers": state["atomic_numbers"]}
        for name, value in model.legacy_state_dict().items():
            module, _, constant = name.rpartition(".")
            if module == "aev_computer" and constant in terms:
                name = f"{module}.{terms[constant]}_terms.{constant}"
            if "default_" not in name:
                state[name] = value
    return state


def so3lr_model(**changes: Any) -> Any:
    """An SO3LR of two layers with few features and random weights, of H, C and O.

    Args:
        changes: of the settings.
    """
    from so3krates_torch.modules.models import SO3LR

    from mlip_deploy.exporters.settings import default_dtype

    settings: dict[str, Any] = {
        "r_max": 4.0,
        "r_max_lr": 9.0,
        "dispersion_energy_cutoff_lr_damping": 1.5,
        "num_radial_basis_fn": 8,
        "degrees": [1, 2],
        "num_features": 16,
        "num_heads": 4,
        "num_layers": 2,
        "energy_regression_dim": 16,
        "avg_num_neighbors": 4.0,
        "radial_basis_fn": "bernstein",
        "cutoff_fn": "phys",
        "use_charge_embed": True,
        "use_spin_embed": True,
        "layer_normalization_1": True,
        "layer_normalization_2": True,
        "residual_mlp_1": True,
        "energy_learn_atomic_type_scales": True,
    } | changes
    torch.manual_seed(0)
    with default_dtype(torch.float32):
        model = SO3LR(**settings)
    with torch.no_grad():
        for number, scale in ((1, 2.0), (6, 3.0), (8, 2.5)):
            model.atomic_energy_output_block.energy_scales.weight[0, number - 1] = scale
    return model


def mattersim_checkpoint(path: Path, seed: int = 0, **changes: Any) -> Path:
    """A MatterSim of two layers with few channels and random weights, as MatterSim saves it.

    Args:
        changes: of the settings.
    """
    from mattersim.forcefield.m3gnet.m3gnet import M3Gnet
    from mattersim.forcefield.potential import Potential

    settings: dict[str, Any] = {"num_blocks": 2, "units": 16, "max_l": 4, "max_n": 4, "cutoff": 5.0}
    settings |= {"max_z": 20, "threebody_cutoff": 4.0} | changes
    torch.manual_seed(seed)
    model = M3Gnet(device="cpu", **settings)
    with torch.no_grad():
        # large enough that forces are of the order of 1 eV/Å, and a tenth of them from angles
        model.atom_embedding.mlp[0].linear.weight.mul_(20.0)
        for layer in model.graph_conv:
            for branch in (layer.three_body.edge_gate_mlp.g, layer.three_body.edge_gate_mlp.sigma):
                branch[0].linear.weight.mul_(100.0)
        numbers = torch.arange(settings["max_z"] + 1)
        model.normalizer.shift.copy_(-1.0 - numbers % 7)
        model.normalizer.scale.copy_(150.0 * (1.0 + 0.1 * (numbers % 3)))
    Potential(model, device="cpu").save(str(path))
    return path


def tiny_pet_checkpoint(
    path: Path, seed: int = 0, targets: tuple[str, ...] = ("energy",), scale: float = 3.0, **changes: Any
) -> Path:
    """A PET of two layers with few features and random weights, stored as metatrain's trainer does.

    Args:
        targets: energies in eV, or with a name that begins with "non_conservative_force" forces.
        scale: of the energies, large enough that forces are of the order of 1 eV/Å.
        changes: of the hyperparameters.
    """
    import metatensor.torch as metatensor
    from ase.data import atomic_numbers
    from metatrain.pet import PET
    from metatrain.utils.architectures import get_default_hypers
    from metatrain.utils.data import DatasetInfo
    from metatrain.utils.data.target_info import get_energy_target_info, get_generic_target_info

    hypers = get_default_hypers("pet")["model"] | {
        "cutoff": 4.0,
        "d_pet": 8,
        "d_head": 8,
        "d_node": 16,
        "d_feedforward": 16,
        "num_heads": 2,
        "num_attention_layers": 1,
        **changes,
    }
    forces = {"quantity": "force", "unit": "eV/A", "type": {"cartesian": {"rank": 1}}, "num_subtargets": 1}
    layouts = {
        name: get_generic_target_info(name, forces | {"sample_kind": "atom"})
        if name.startswith("non_conservative_force")
        else get_energy_target_info(name, {"quantity": "energy", "unit": "eV"})
        for name in targets
    }
    numbers = sorted(atomic_numbers[symbol] for symbol in ELEMENTS)
    torch.manual_seed(seed)
    model = PET(hypers, DatasetInfo(length_unit="angstrom", atomic_types=numbers, targets=layouts))
    composition, scaler = model.additive_models[0], model.scaler
    for k, name in enumerate(name for name in targets if name.startswith("energy")):
        # what training would fit
        offsets, scales = composition.model.weights[name], scaler.model.scales[name]
        offsets.block().values[:, 0] = -torch.arange(1.0, len(numbers) + 1, dtype=torch.float64) - 10.0 * k
        scales.block().values.fill_(scale)
        composition.register_buffer(f"{name}_composition_buffer", metatensor.save_buffer(offsets))
        scaler.register_buffer(f"{name}_scaler_buffer", metatensor.save_buffer(scales))
    torch.save(model.get_checkpoint() | {"epoch": 0, "best_epoch": 0}, path)
    return path


def tiny_fairchem_checkpoint(
    path: Path, seed: int = 0, model_changes: dict[str, Any] | None = None, omegaconf: bool = False, **changes: Any
) -> Path:
    """An eSEN or UMA of two layers with few channels and random weights, in fairchem's own inference checkpoint.

    Args:
        model_changes: of the settings of the whole model, among them its heads.
        omegaconf: settings as a training of one's own leaves them; else as in published files.
        changes: of the settings of its backbone.
    """
    import importlib

    from omegaconf import OmegaConf

    from mlip_deploy.exporters.families.fairchem.framework import fairchem
    from mlip_deploy.exporters.settings import default_dtype

    backbone: dict[str, Any] = {
        "model": "fairchem.core.models.uma.escn_md.eSCNMDBackbone",
        "sphere_channels": 8,
        "hidden_channels": 8,
        "edge_channels": 8,
        "num_distance_basis": 16,
        "lmax": 2,
        "mmax": 2,
        "num_layers": 2,
        "cutoff": 4.0,
        "direct_forces": False,
        "regress_forces": True,
        "regress_stress": True,
        "dataset_mapping": {"omat": "omat"},
    } | changes
    datasets = list(backbone["dataset_mapping"])
    config: dict[str, Any] = {
        "backbone": backbone,
        "heads": {"efs": {"module": "fairchem.core.models.uma.escn_md.MLP_EFS_Head", "prefix": "omat"}},
        "pass_through_head_outputs": True,
    } | (model_changes or {})
    normalization = "fairchem.core.modules.normalization"
    tasks = [
        {
            "_target_": "fairchem.core.units.mlip_unit.mlip_unit.Task",
            "name": f"{dataset}_energy",
            "level": "system",
            "property": "energy",
            "out_spec": {"dim": [1], "dtype": "float32"},
            "normalizer": {"_target_": f"{normalization}.normalizer.Normalizer", "mean": 0.0, "rmsd": 150.0},
            "element_references": {
                "_target_": f"{normalization}.element_references.ElementReferences",
                # of 86 elements, as a polynomial of the atomic number; of atoms, thousands of eV
                "element_references": {
                    "_target_": "torch.DoubleTensor",
                    "_args_": [[-0.5 * z * z - 0.1 * k if z < 87 else 0.0 for z in range(100)]],
                },
            },
            "datasets": [dataset],
            "metrics": ["mae"],
        }
        for k, dataset in enumerate(datasets)
    ]
    torch.manual_seed(seed)
    with fairchem(), default_dtype(torch.float32):
        model = importlib.import_module("fairchem.core.models.base").HydraModel(**config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith(("source_embedding.weight", "target_embedding.weight")):
                    parameter.mul_(300.0)  # fairchem starts elements so close that they are the same
                elif "routing_mlp" in name:
                    parameter.mul_(3.0)  # its experts would all count the same
                elif "norm" in name or name.endswith("bias"):
                    parameter.add_(0.2 * torch.randn_like(parameter))  # from ones and zeros
        averaged = torch.optim.swa_utils.AveragedModel(model).state_dict()
        checkpoint = importlib.import_module("fairchem.core.units.mlip_unit.api.inference").MLIPInferenceCheckpoint(
            model_config=OmegaConf.create(config) if omegaconf else config,
            model_state_dict={name: torch.zeros_like(value) for name, value in model.state_dict().items()},
            ema_state_dict=averaged,
            tasks_config=OmegaConf.create(tasks) if omegaconf else tasks,
        )
        torch.save(checkpoint, path)
    return path


def torchmdnet_checkpoint(path: Path, seed: int = 0, **changes: Any) -> Path:
    """A TensorNet of TorchMD-Net of one layer with few channels and random weights, as its training stores it.

    Args:
        changes: of the hyperparameters.
    """
    import importlib

    from mlip_deploy.exporters.families.torchmdnet.framework import torchmdnet

    settings: dict[str, Any] = {"model": "tensornet", "precision": 32, "embedding_dimension": 16, "num_layers": 1}
    settings |= {"num_rbf": 8, "rbf_type": "expnorm", "trainable_rbf": False, "activation": "silu", "max_z": 20}
    settings |= {"cutoff_lower": 0.0, "cutoff_upper": 4.5, "max_num_neighbors": 64, "atom_filter": -1}
    settings |= {"equivariance_invariance_group": "O(3)", "output_model": "Scalar", "reduce_op": "add"}
    settings |= {"derivative": True, "prior_model": "Atomref", "prior_args": {"max_z": 20}} | changes
    torch.manual_seed(seed)
    with torchmdnet():
        model = importlib.import_module("torchmdnet.models.model").create_model(dict(settings))
    with torch.no_grad():
        # large enough that forces are of the order of 1 eV/Å, with skew and symmetric parts like those of unit matrices
        if settings["model"] == "tensornet":
            tensornet = model.representation_model
            for part, scale in zip(tensornet.tensor_embedding.linears_tensor, (4.0, 16.0, 60.0), strict=True):
                part.weight.mul_(scale)
            for layer in tensornet.layers:
                for part in layer.linears_tensor:
                    part.weight.mul_(3.0)
        model.std.fill_(5.0)
        for prior in model.prior_model or ():
            if hasattr(prior, "atomref"):
                prior.atomref.weight.copy_(-1.5 - 0.7 * torch.arange(20.0).unsqueeze(1))
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save({"epoch": 0, "state_dict": state, "hyper_parameters": settings}, path)
    return path


def orb_checkpoint(path: Path, seed: int = 0, **changes: Any) -> Path:
    """An Orb v3 of two layers with few channels and random weights, saved as orb-models' finetuning does.

    Args:
        changes: of the architecture, as `pretrained.orb_v3_conservative_architecture` takes them.
    """
    import sys
    from types import SimpleNamespace
    from unittest.mock import patch

    with patch.dict(sys.modules, {"cached_path": SimpleNamespace(cached_path=None)}):  # downloads
        from orb_models.forcefield.pretrained import orb_v3_conservative_architecture

    settings: dict[str, Any] = {"latent_dim": 16, "base_mlp_hidden_dim": 32, "head_mlp_hidden_dim": 16}
    settings |= {"num_message_passing_steps": 2} | changes
    torch.manual_seed(seed)
    model = orb_v3_conservative_architecture(device="cpu", **settings)
    with torch.no_grad():
        # large enough that atoms differ, and forces are of the order of 1 eV/Å
        for name, parameter in model.named_parameters():
            if ".mlp.NN-" in name and name.endswith("weight"):
                parameter.mul_(2.0)
        model.heads["energy"].normalizer.bn.running_var.fill_(4.0)
    torch.save(model.state_dict(), path)
    return path


def matgl_potential(path: Path, seed: int = 0, potential: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A potential of MatGL's TensorNet of two layers with few channels and random weights, as MatGL saves it.

    Args:
        path: of the folder.
        potential: changes of the potential's arguments.
        changes: of the model's.
    """
    from matgl.apps.pes import Potential
    from matgl.models import TensorNet

    settings: dict[str, Any] = {"element_types": ("O", "Na", "Cl", "Ti"), "units": 16, "nblocks": 2, "max_n": 3}
    settings |= {"rbf_type": "SphericalBessel", "use_smooth": True, "is_intensive": False, "use_warp": False} | changes
    torch.manual_seed(seed)
    model = TensorNet(**settings)
    references = -1.5 - 0.7 * torch.arange(len(settings["element_types"]))
    arguments: dict[str, Any] = {"data_std": 1.7, "element_refs": references} | (potential or {})
    with torch.no_grad():
        # large enough that forces are of the order of 1 eV/Å, with skew and symmetric parts like those of unit matrices
        for part, scale in zip(model.tensor_embedding.linears_tensor, (2.0, 8.0, 30.0), strict=True):
            part.weight.mul_(scale)
        for branch in (model.final_layer.gated.layers, model.final_layer.gated.gates):
            for layer in branch:
                if hasattr(layer, "weight"):
                    layer.weight.mul_(2.0)
    Potential(model, **arguments).save(path)
    return path

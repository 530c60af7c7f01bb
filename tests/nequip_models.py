"""Small NequIP and Allegro models with random weights, written by NequIP's own training module and packager.

python tests/nequip_models.py nequip|allegro FILE [OPTIONS OF THE MODEL'S BUILDER AS JSON]
python tests/nequip_models.py    reads these three per line as JSON from standard input, and writes its exit status
"""

import atexit
import json
import os
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

TYPES = ("Na", "Cl", "Si")
ZBL = {"_target_": "nequip.nn.pair_potential.ZBL", "units": "metal", "chemical_species": list(TYPES)}


def write(kind: str, path: Path, **options: Any) -> Path:
    """Write a model in a process of its own, because NequIP sets torch's default type and e3nn's options for good.

    It is forked from one that has imported NequIP and its trainer, which takes ten seconds.

    Args:
        kind: "nequip" (three layers) or "allegro".
        path: *.ckpt or *.nequip.zip.
        options: of the model builder, in place of the small model's.
    """
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    print(json.dumps([kind, str(path), options]), file=server.stdin, flush=True)
    assert server.stdout.readline() == "0\n"
    return path


@cache
def _server() -> "subprocess.Popen[str]":
    server = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(server.communicate)  # at the end of its input it ends
    return server


def _serve() -> None:
    for name in ("lightning", "nequip.train", "nequip.scripts.package"):
        import_module(name)
    for line in sys.stdin:
        kind, path, options = json.loads(line)
        process = os.fork()
        if process == 0:
            os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the answers alone are written there
            _write(kind, Path(path), options)
            sys.exit()
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


def _model(kind: str, options: dict[str, Any]) -> dict[str, Any]:
    model = {
        "seed": 0,
        "model_dtype": "float32",
        "type_names": list(TYPES),
        "r_max": 4.0,
        "l_max": 1,
        "avg_num_neighbors": 12.0,
        # large enough that forces are of the order of 1 eV/Å
        "per_type_energy_scales": {"Na": 8.0, "Cl": 9.0, "Si": 10.0},
        "per_type_energy_shifts": {"Na": -1.0, "Cl": -2.0, "Si": -3.0},
    }
    if kind == "allegro":
        embedding = {"_target_": "allegro.nn.TwoBodyBesselScalarEmbed", "num_bessels": 4}
        model |= {"_target_": "allegro.model.AllegroModel", "num_layers": 2, "radial_chemical_embed": embedding}
        model |= {"num_scalar_features": 8, "num_tensor_features": 4}
    else:
        model |= {"_target_": "nequip.model.NequIPGNNModel", "num_layers": 3, "num_features": 8, "radial_mlp_width": 8}
    return model | options


def _write_checkpoint(model: dict[str, Any], path: Path) -> None:
    import lightning
    from ase.build import bulk
    from nequip.train import NequIPLightningModule
    from nequip.utils.global_state import set_global_state

    # nequip-package stores one structure of the training set.
    structure = path.with_suffix(".xyz")
    bulk("NaCl", "rocksalt", a=5.4, cubic=True).write(structure)
    transforms = [
        {
            "_target_": "nequip.data.transforms.ChemicalSpeciesToAtomTypeMapper",
            "model_type_names": model["type_names"],
        },
        {"_target_": "nequip.data.transforms.NeighborListTransform", "r_max": model["r_max"]},
    ]
    data = {
        "_target_": "nequip.data.datamodule.ASEDataModule",
        "seed": 0,
        "train_file_path": str(structure),
        "val_file_path": str(structure),
        "transforms": transforms,
    }
    set_global_state()
    module = NequIPLightningModule(
        model=model,
        num_datasets={"train": 1, "val": 0, "test": 0, "predict": 0},
        info_dict={"versions": {}, "training_module": {"_target_": "nequip.train.NequIPLightningModule"}, "data": data},
    )
    trainer = lightning.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", max_steps=0)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path)


def _write(kind: str, path: Path, options: dict[str, Any]) -> None:
    model = _model(kind, options)
    if not path.name.endswith(".nequip.zip"):
        _write_checkpoint(model, path)
        return
    from nequip.scripts.package import main

    checkpoint = path.with_name(path.name.removesuffix(".nequip.zip") + "-packaged.ckpt")
    _write_checkpoint(model, checkpoint)
    main(["build", str(checkpoint), str(path)])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _write(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3] if len(sys.argv) > 3 else "{}"))
    else:
        _serve()

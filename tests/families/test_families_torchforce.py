"""TorchForce files of NequIP, Allegro and CHGNet: both output forms, in nm and kJ/mol, against the original."""

import numpy as np
import pytest
import torch
from ase.build import bulk
from tolerances import FLOAT64_SUM, FORCE_SIGNAL

from mlip_deploy.exporters.families.registry import FAMILIES, ExportOptions
from mlip_deploy.exporters.targets.torchforce import KJ_PER_MOL, write_torchforce


def source(name, directory):
    if name == "chgnet":
        from models import tiny_chgnet_checkpoint

        return "chgnet", tiny_chgnet_checkpoint(directory / "mine.pth.tar")
    import nequip_models

    return "nequip", nequip_models.write(name, directory / f"{name}.ckpt")


@pytest.mark.parametrize("name", ["nequip", "allegro", "chgnet"])
def test_both_forms(name, tmp_path):
    package = "chgnet" if name == "chgnet" else "nequip"
    pytest.importorskip(package, reason=f"the package '{package}' is not installed. Type: pip install {package}")
    family, path = source(name, tmp_path)
    adapted = FAMILIES[family].adapt(str(path), ExportOptions(fuse=False))
    atoms = bulk("NaCl", "rocksalt", a=5.4, cubic=True)
    atoms.rattle(0.1, seed=3)
    truth = adapted.original.float64(atoms)
    assert np.abs(truth.forces).max() > FORCE_SIGNAL
    cell = torch.tensor(0.1 * atoms.cell.array)
    for forces in (True, False):
        output = tmp_path / f"{forces}.torchforce.pt"
        symbols = atoms.get_chemical_symbols()
        write_torchforce(adapted, output, "float64", lambda _: None, symbols, forces=forces)
        positions = torch.tensor(0.1 * atoms.positions, requires_grad=True)
        module = torch.jit.load(str(output))
        if forces:
            energy, found = module(positions, cell)
        else:
            energy = module(positions, cell)
            found = -torch.autograd.grad(energy, positions)[0]
        assert float(energy.detach()) == pytest.approx(truth.energy * KJ_PER_MOL, rel=1e-12)
        np.testing.assert_allclose(0.1 * found.detach() / KJ_PER_MOL, truth.forces, rtol=0, atol=FLOAT64_SUM)
